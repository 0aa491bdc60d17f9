"""Which folder a run writes to, and what happens when something is already there.

Nothing here asks a question: a choice that needs the user ends in a `ConfigError` that names it.
"""

import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock, Timeout

from cookbook.errors import ConfigError, DataError
from cookbook.runlog import lines

IfExists = Literal["resume", "overwrite", "raise"]
CONFIG, RUN, LOCK = "config.json", "run.json", "run.lock"
KIND = "tinker-cookbook-notebooks run"
MAY_DIFFER = ("log_path", "if_exists", "wandb_project", "wandb_name")
"""Settings that do not change what is trained: a resumed run may change them."""

_WAYS_OUT = (
    "choose another log_path (an empty one makes a fresh folder), or pass if_exists='overwrite' to "
    "delete that run and start anew"
)


def log_root() -> Path:
    """Return the folder that fresh runs go to: $COOKBOOK_LOG_ROOT or /tmp/tinker-examples."""
    chosen = os.environ.get("COOKBOOK_LOG_ROOT")
    if chosen:
        return Path(chosen).expanduser()
    return Path(tempfile.gettempdir() if os.name == "nt" else "/tmp") / "tinker-examples"


def unique_log_path(name: str) -> Path:
    """Return a path below `log_root` that no other run has; nothing is created.

    The name is followed by the time to the second and six random hexadecimal digits, so two runs
    started in the same second stay apart. Choose it once, before training, so that running the
    training cell again after an interrupt finds the same run.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return log_root() / f"{safe}-{stamp}-{secrets.token_hex(3)}"


def read_config(log_path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the settings of the run in `log_path`.

    Raises:
        DataError: there is no `config.json`, or it is not a JSON object.
    """
    return _read_object(Path(log_path).expanduser() / CONFIG)


def read_facts(log_path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what the run was made with (`run.json`); empty for logs of other programs."""
    file = Path(log_path).expanduser() / RUN
    return _read_object(file) if file.exists() else {}


def write_object(file: Path, content: Mapping[str, Any]) -> None:
    """Replace `file` by `content` as indented JSON, all or nothing."""
    lines.replace(file, json.dumps(lines.encode(content), indent=2, allow_nan=False) + "\n")


def check_choice(if_exists: str) -> None:
    """Raise ConfigError unless `if_exists` is one of the three rules."""
    allowed = get_args(IfExists)
    if if_exists not in allowed:
        raise ConfigError(f"if_exists: expected one of {', '.join(allowed)}, got {if_exists!r}.")


def make(path: Path, if_exists: IfExists) -> None:
    """Make the folder `path`; afterwards it holds nothing, or a run unless that was overwritten.

    Raises:
        ConfigError: the folder holds something that is not a run, or cannot be made or deleted.
    """
    if _holds_something(path) and not _is_run(path):
        raise ConfigError(
            f"log_path {path} holds files that are not a run's ({_some_names(path)}). Nothing was "
            "touched. Choose an empty or new folder, or leave log_path empty for a fresh one."
        )
    if if_exists == "overwrite" and path.exists():
        delete_run(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"log_path {path} cannot be made ({error.strerror}). Choose a folder you can write to, "
            "or set COOKBOOK_LOG_ROOT to one."
        ) from error


def holds_run(path: Path) -> bool:
    """Return whether `path` is a run folder, of this package or one that a loop wrote by hand."""
    return _is_run(path) or all((path / name).is_file() for name in (CONFIG, "metrics.jsonl"))


def delete_run(path: Path) -> None:
    """Delete the run folder `path`.

    Raises:
        ConfigError: it is not a run folder, or holds the working or home folder, or is in use.
    """
    inside = [place for place in (Path.cwd(), Path.home()) if place.resolve().is_relative_to(path)]
    if inside or not (holds_run(path) or not _holds_something(path)):
        raise ConfigError(
            f"log_path {path} is not deleted: it "
            + (f"contains {inside[0]}" if inside else "is not recognisably a run folder")
            + ". Choose another log_path, or delete it yourself."
        )
    lock_run(path).release(force=True)  # refuses while another process writes there
    # Renamed first: a kill in the middle then leaves no half-deleted run at this path.
    doomed = path.with_name(f".{path.name}.{secrets.token_hex(3)}.deleted")
    path.rename(doomed)
    shutil.rmtree(doomed)


def lock_run(path: Path) -> FileLock:
    """Return the held lock of the run folder; it ends with its holder, even by SIGKILL.

    Raises:
        ConfigError: another process holds it.
    """
    lock = FileLock(path / LOCK, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"log_path {path} is being written by another process. Wait for it, stop it, or choose "
            "another log_path (an empty one makes a fresh folder)."
        ) from None
    return lock


def check_resumable(path: Path, settings: Mapping[str, Any], if_exists: IfExists) -> None:
    """Raise ConfigError if the run in `path`, if any, may not go on with the JSON `settings`."""
    if not (path / CONFIG).exists():
        return
    if if_exists == "raise":
        raise ConfigError(
            f"log_path {path} already holds a run. Pass if_exists='resume' to go on with it, or "
            f"{_WAYS_OUT}."
        )
    changes = _changed_fields(lines.encode(read_config(path)), settings)
    if changes:
        raise ConfigError(
            f"log_path {path} holds a run started with other settings:\n"
            + "".join(f"  {change}\n" for change in changes)
            + f"To go on with it, set these fields back. Otherwise {_WAYS_OUT}."
        )


def plain_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `config` as JSON data.

    Raises:
        ConfigError: a value that JSON has no form for; the message names the field.
    """
    plain = {}
    for field, value in config.items():
        try:
            plain[str(field)] = lines.encode(value)
        except DataError as error:
            raise ConfigError(f"config field {field!r}: {error}") from error
    return plain


def _changed_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return one line for each field of the JSON settings `old` and `new` that differs."""
    absent = object()

    def shown(value: object) -> str:
        return "not set" if value is absent else repr(value)

    pairs = {field: (old.get(field, absent), new.get(field, absent)) for field in [*old, *new]}
    return [
        f"{field}: {shown(before)} there, {shown(now)} now"
        for field, (before, now) in pairs.items()
        if field not in MAY_DIFFER and before != now
    ]


def _holds_something(path: Path) -> bool:
    """True when `path` holds more than what an interrupted start of our own can leave."""
    if path.exists() and not path.is_dir():
        raise ConfigError(f"log_path {path} is a file; a run needs a folder. Choose another path.")
    return path.is_dir() and bool(_names(path))


def _names(path: Path) -> list[str]:
    return sorted(f.name for f in path.iterdir() if f.name != LOCK and f.suffix != ".part")


def _some_names(path: Path) -> str:
    names = _names(path)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _is_run(path: Path) -> bool:
    try:
        return read_facts(path).get("kind") == KIND
    except DataError:
        return False


def _read_object(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise DataError(f"{file} does not exist. Give the log path of a training run.")
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise DataError(f"{file}: expected a JSON object, but {error}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{file}: expected a JSON object, got {type(content).__name__}.")
    return lines.decode(content)
