"""Runs and checkpoints on disk: written whole or not at all, readable by any later engine.

Owns: the folder layout below the data directory and the `tinker://` names.

    runs/<run>/run.json                        the run: base model, LoRA settings, user metadata
    runs/<run>/<segment>/<name>/               one checkpoint, a PEFT folder, plus manifest.json
    (<segment> is `weights`, with optimizer.safetensors, `sampler_weights` or `external_weights`)
"""

import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cookbook.engine.errors import NotFoundError, UserError

TRAINING, SAMPLER, EXTERNAL = "weights", "sampler_weights", "external_weights"
SEGMENTS = {TRAINING: "training", SAMPLER: "sampler", EXTERNAL: "external"}  # and their kinds
OVERWRITTEN = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{32}\.old")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
RUN_ID = re.compile(r"[A-Za-z0-9-]+:train:[0-9]+")
TTL_RANGE_S = (3600, 10 * 365 * 24 * 3600)


@dataclass(frozen=True)
class CheckpointRef:
    """A parsed `tinker://<run_id>/<segment>/<name>` path."""

    run_id: str
    segment: str
    name: str

    @property
    def path(self) -> str:
        """The path as users write it."""
        return f"tinker://{self.run_id}/{self.segment}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A stored checkpoint: its path, its manifest and its size on disk."""

    ref: CheckpointRef
    manifest: dict[str, Any]
    size_bytes: int

    def described(self) -> dict[str, Any]:
        """Return it as the SDK's `Checkpoint` has it."""
        expires = self.manifest.get("expires")
        return {
            "checkpoint_id": f"{self.ref.segment}/{self.ref.name}",
            "checkpoint_type": SEGMENTS[self.ref.segment],
            "time": self.manifest["created"],
            "tinker_path": self.ref.path,
            "size_bytes": self.size_bytes,
            "public": bool(self.manifest.get("public")),
            "user_metadata": self.manifest.get("user_metadata") or {},
            "expires_at": None if expires is None else _timestamp(expires),
        }


def parse_path(path: str) -> CheckpointRef:
    """Return the parts of a checkpoint path.

    Raises:
        UserError: the path has another form.
    """
    parts = path.removeprefix("tinker://").split("/")
    fine = (
        path.startswith("tinker://")
        and len(parts) == 3
        and RUN_ID.fullmatch(parts[0])
        and parts[1] in SEGMENTS
        and NAME.fullmatch(parts[2])
    )
    if not fine:
        raise UserError(
            f"checkpoint path is {path!r}; the form is tinker://<training run id>/<segment>/<name> "
            f"with segment one of {', '.join(SEGMENTS)}"
        )
    return CheckpointRef(*parts)


def check_name(name: str) -> str:
    """Return `name` if it may name a checkpoint, else raise a UserError."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"checkpoint name is {name!r}; allowed are letters, digits, '.', '_' and '-', starting "
            "with a letter or digit, at most 128 characters"
        )
    return name


def check_ttl(ttl_seconds: int | None) -> None:
    """Raise a UserError unless the time to live is None (never expires) or within the range."""
    low, high = TTL_RANGE_S
    if ttl_seconds is not None and not low <= ttl_seconds <= high:
        raise UserError(f"ttl_seconds is {ttl_seconds}; allowed are {low} to {high}, or none")


def expiry(ttl_seconds: int | None) -> float | None:
    """Return when a time to live that begins now ends, in seconds since 1970; None is never."""
    return None if ttl_seconds is None else time.time() + ttl_seconds


class Store:
    """The data directory of an engine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "runs").mkdir(parents=True, exist_ok=True)
        self._finish_overwriting()
        self._remove_expired()

    def _run_folder(self, run_id: str) -> Path:
        return self.root / "runs" / run_id.replace(":", "_")  # ':' is not allowed on Windows

    def folder(self, ref: CheckpointRef) -> Path:
        """Return where a checkpoint lives, whether it exists or not."""
        return self._run_folder(ref.run_id) / ref.segment / ref.name

    def create_run(self, run_id: str, info: dict[str, Any]) -> None:
        """Record a new training run."""
        folder = self._run_folder(run_id)
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / "run.json", {"run_id": run_id, "created": _now(), **info})

    def save(
        self,
        ref: CheckpointRef,
        write: Callable[[Path], None],
        manifest: dict[str, Any],
        *,
        overwrite: bool = False,
        ttl_seconds: int | None = None,
    ) -> str:
        """Write a checkpoint through `write(folder)` and return its path.

        The folder appears under its name only when it is complete.

        Raises:
            UserError: the name is taken and `overwrite` is false.
        """
        target = self.folder(ref)
        if target.exists() and not overwrite:
            raise UserError(
                f"checkpoint {ref.path} exists already; choose another name"
                + (" or save with overwrite=True" if ref.segment == TRAINING else "")
            )
        partial = target.parent / f".{ref.name}.{uuid.uuid4().hex}"
        partial.mkdir(parents=True)
        try:
            write(partial)
            stamps = {"created": _now(), "expires": expiry(ttl_seconds)}
            _write_json(partial / "manifest.json", {**manifest, **stamps})
            _swap(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return ref.path

    def load_manifest(self, ref: CheckpointRef) -> dict[str, Any]:
        """Return a checkpoint's manifest.

        Raises:
            NotFoundError: there is no such checkpoint (any more).
        """
        manifest = self._manifest(ref)
        if manifest is None or _is_expired(manifest):
            names = sorted(p.name for p in self.folder(ref).parent.glob("[!.]*"))
            raise NotFoundError(
                f"there is no checkpoint {ref.path}"
                + (f"; this run has {', '.join(names)}" if names else "; it has none of this kind")
            )
        return manifest

    def _manifest(self, ref: CheckpointRef) -> dict[str, Any] | None:
        file = self.folder(ref) / "manifest.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def runs(self) -> list[dict[str, Any]]:
        """Return what `create_run` recorded of every run, newest first."""
        files = self.root.glob("runs/*/run.json")
        found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        return sorted(found, key=lambda run: (run["created"], run["run_id"]), reverse=True)

    def run_info(self, run_id: str) -> dict[str, Any]:
        """Return what `create_run` recorded of a run.

        Raises:
            NotFoundError: there is no such run.
        """
        file = self._run_folder(run_id) / "run.json"
        if not RUN_ID.fullmatch(run_id) or not file.is_file():
            raise NotFoundError(f"there is no training run {run_id}")
        return json.loads(file.read_text(encoding="utf-8"))

    def checkpoints(self, run_id: str) -> list[Checkpoint]:
        """Return a run's checkpoints, newest first."""
        files = self._run_folder(run_id).glob("*/[!.]*/manifest.json")
        refs = [CheckpointRef(run_id, file.parts[-3], file.parts[-2]) for file in files]
        found = [self.read(ref) for ref in refs if not _is_expired(self._manifest(ref) or {})]
        return sorted(found, key=lambda c: (c.manifest["created"], c.ref.path), reverse=True)

    def read(self, ref: CheckpointRef) -> Checkpoint:
        """Return a checkpoint; raise NotFoundError if there is none."""
        manifest = self.load_manifest(ref)
        size = sum(file.stat().st_size for file in self.folder(ref).iterdir())
        return Checkpoint(ref=ref, manifest=manifest, size_bytes=size)

    def change(self, ref: CheckpointRef, **changes: Any) -> None:
        """Replace entries of a checkpoint's manifest."""
        _write_json(self.folder(ref) / "manifest.json", {**self.load_manifest(ref), **changes})

    def delete(self, ref: CheckpointRef) -> None:
        """Remove a checkpoint; raise NotFoundError if there is none."""
        self.load_manifest(ref)
        aside = self.folder(ref).with_name(f".{ref.name}.{uuid.uuid4().hex}")
        os.replace(self.folder(ref), aside)  # gone at once, whatever stops the removal
        shutil.rmtree(aside, ignore_errors=True)

    def _finish_overwriting(self) -> None:
        """Put back, or remove, what an engine that was killed inside `_swap` had moved away."""
        for old in self.root.glob("runs/*/*/.*.old"):
            match = OVERWRITTEN.fullmatch(old.name)
            if match and not old.with_name(match["name"]).exists():
                os.replace(old, old.with_name(match["name"]))
            elif match:
                shutil.rmtree(old, ignore_errors=True)

    def _remove_expired(self) -> None:
        for file in self.root.glob("runs/*/*/*/manifest.json"):
            if _is_expired(json.loads(file.read_text(encoding="utf-8"))):
                shutil.rmtree(file.parent, ignore_errors=True)


def _is_expired(manifest: dict[str, Any]) -> bool:
    expires = manifest.get("expires")
    return expires is not None and expires < time.time()


def _swap(new: Path, target: Path) -> None:
    """Put folder `new` at `target`; an older one there is replaced by two renames.

    Should the engine be killed between them, the next one puts the older back when it starts.
    """
    if not target.exists():
        os.replace(new, target)
        return
    old = target.parent / f".{target.name}.{uuid.uuid4().hex}.old"
    os.replace(target, old)
    os.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)


def _write_json(file: Path, value: dict[str, Any]) -> None:
    partial = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    partial.write_text(json.dumps(value, indent=2), encoding="utf-8")
    os.replace(partial, file)


def _now() -> str:
    return _timestamp(time.time())


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
