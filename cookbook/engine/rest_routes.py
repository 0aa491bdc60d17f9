"""Looking at what the engine keeps: runs, checkpoints, sessions, downloads.

Owns: everything the SDK's RestClient and the `tinker` command line ask for. It reads and changes
files and records only; nothing here waits for the worker.
"""

import shutil
from collections.abc import Sequence
from email.utils import format_datetime
from pathlib import Path
from typing import Any, TypeVar

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from tinker import types

from cookbook.engine.backend import Backend
from cookbook.engine.errors import NotFoundError, UserError
from cookbook.engine.file_urls import ARCHIVE, FileUrls, write_archive
from cookbook.engine.http import RouteTable, json_body, parse
from cookbook.engine.sessions import Session
from cookbook.engine.store import SAMPLER, TRAINING, CheckpointRef, check_ttl, expiry, parse_path

T = TypeVar("T")
MAX_PAGE = 1000


class RestRoutes:
    """Handlers of what a RestClient sends."""

    def __init__(self, backend: Backend, urls: FileUrls) -> None:
        self.backend = backend
        self.urls = urls
        self._copies: dict[str, str] = {}  # idempotency key -> path of the copy

    def routes(self) -> RouteTable:
        """Return the handlers by method and path below ``/api/v1/``."""
        checkpoint = "training_runs/{run_id}/checkpoints/{segment}/{name}"
        return {
            ("GET", "training_runs"): self.list_runs,
            ("GET", "training_runs/{run_id}"): self.get_run,
            ("GET", "training_runs/{run_id}/checkpoints"): self.list_run_checkpoints,
            ("GET", "checkpoints"): self.list_checkpoints,
            ("DELETE", checkpoint): self.delete_checkpoint,
            ("POST", f"{checkpoint}/publish"): self.publish,
            ("DELETE", f"{checkpoint}/publish"): self.unpublish,
            ("PUT", f"{checkpoint}/ttl"): self.set_ttl,
            ("GET", f"{checkpoint}/external_weights_urls"): self.external_weights_urls,
            ("GET", f"{checkpoint}/archive"): self.archive,
            ("POST", "weights_info"): self.weights_info,
            ("POST", "copy_weights"): self.copy_weights,
            ("GET", "sessions"): self.list_sessions,
            ("POST", "sessions/search"): self.search_sessions,
            ("GET", "sessions/{session_id}"): self.get_session,
            ("PUT", "sessions/{session_id}/project"): self.assign_project,
        }

    # --- runs -------------------------------------------------------------------------------

    async def list_runs(self, request: Request) -> Response:
        """List training runs, newest first."""
        page, cursor = _page(request, self.backend.runtime.store.runs(), 20)
        runs = [self._described(run) for run in page]
        return JSONResponse({"training_runs": runs, "cursor": cursor})

    async def get_run(self, request: Request) -> Response:
        """Describe a training run."""
        run_id = request.path_params["run_id"]
        return JSONResponse(self._described(self.backend.runtime.store.run_info(run_id)))

    def _described(self, run: dict[str, Any]) -> dict[str, Any]:
        """Return a run as the SDK's `TrainingRun` has it."""
        found = self.backend.runtime.store.checkpoints(run["run_id"])
        newest = {
            segment: next((c for c in found if c.ref.segment == segment), None)
            for segment in (TRAINING, SAMPLER)
        }
        last = {k: c.described() if c else None for k, c in newest.items()}
        times = [run["created"], *(checkpoint.manifest["created"] for checkpoint in found)]
        return {
            "training_run_id": run["run_id"],
            "base_model": run["base_model"],
            "model_owner": "local",
            "is_lora": True,
            "lora_rank": run["lora"]["rank"],
            "corrupted": False,
            "last_request_time": self.backend.last_requests.get(run["run_id"], max(times)),
            "last_checkpoint": last[TRAINING],
            "last_sampler_checkpoint": last[SAMPLER],
            "user_metadata": run.get("user_metadata") or {},
        }

    # --- checkpoints ------------------------------------------------------------------------

    async def list_run_checkpoints(self, request: Request) -> Response:
        """List a run's checkpoints, newest first."""
        store = self.backend.runtime.store
        run_id = store.run_info(request.path_params["run_id"])["run_id"]
        return JSONResponse({"checkpoints": [c.described() for c in store.checkpoints(run_id)]})

    async def list_checkpoints(self, request: Request) -> Response:
        """List all checkpoints, newest first."""
        store = self.backend.runtime.store
        found = [c for run in store.runs() for c in store.checkpoints(run["run_id"])]
        found.sort(key=lambda c: (c.manifest["created"], c.ref.path), reverse=True)
        page, cursor = _page(request, found, 100)
        return JSONResponse({"checkpoints": [c.described() for c in page], "cursor": cursor})

    async def delete_checkpoint(self, request: Request) -> Response:
        """Remove a checkpoint for good."""
        self.backend.runtime.store.delete(_ref(request))
        return Response(status_code=204)

    async def publish(self, request: Request) -> Response:
        """Mark a checkpoint as public; here it is a mark and no more."""
        self.backend.runtime.store.change(_ref(request), public=True)
        return Response(status_code=204)

    async def unpublish(self, request: Request) -> Response:
        """Take the mark away."""
        self.backend.runtime.store.change(_ref(request), public=False)
        return Response(status_code=204)

    async def set_ttl(self, request: Request) -> Response:
        """Let a checkpoint expire so many seconds from now, or never."""
        ttl_seconds = (await json_body(request)).get("ttl_seconds")
        check_ttl(ttl_seconds)
        self.backend.runtime.store.change(_ref(request), expires=expiry(ttl_seconds))
        return Response(status_code=204)

    async def weights_info(self, request: Request) -> Response:
        """Describe a checkpoint's weights."""
        path = str((await json_body(request)).get("tinker_path"))
        manifest = self.backend.runtime.store.load_manifest(parse_path(path))
        lora = dict(manifest["lora"])
        info = {"base_model": manifest["base_model"], "is_lora": True}
        return JSONResponse(info | {"lora_rank": lora.pop("rank")} | lora)

    async def copy_weights(self, request: Request) -> Response:
        """Copy a checkpoint into a new run, which holds it and can't be trained."""
        body = parse(types.CopyWeightsRequest, await json_body(request))
        key = request.headers.get("x-idempotency-key", "")
        if key not in self._copies or not key:
            self._copies[key] = self._copy(body)
        return JSONResponse({"tinker_path": self._copies[key]})

    def _copy(self, body: Any) -> str:  # a CopyWeightsRequest, which SDK 0.24 does not have
        check_ttl(body.ttl_seconds)
        store = self.backend.runtime.store
        source = store.read(parse_path(body.source_path))
        session_id = body.session_id
        if session_id is None:
            project = body.destination_project_id or "local"
            session_id = self.backend.sessions.open(project_id=project).session_id
        run_id = f"{session_id}:train:{body.model_seq_id or 0}"
        origin = {"base_model": source.manifest["base_model"], "lora": source.manifest["lora"]}
        store.create_run(run_id, {**origin, "user_metadata": {"copied_from": body.source_path}})
        target = CheckpointRef(run_id, source.ref.segment, source.ref.name)
        folder = store.folder(source.ref)
        return store.save(
            target,
            lambda partial: _copy_files(folder, partial),
            {**source.manifest, "public": False},
            ttl_seconds=body.ttl_seconds,
        )

    # --- downloads --------------------------------------------------------------------------

    async def external_weights_urls(self, request: Request) -> Response:
        """Give a signed URL for each file of a checkpoint."""
        ref, base = _ref(request), str(request.base_url)
        signed = {name: self.urls.sign(base, ref, name) for name in self.urls.names(ref)}
        expires = min(expires for _, expires in signed.values())
        urls = {name: url for name, (url, _) in signed.items()}
        return JSONResponse({"urls": urls, "expires": expires.isoformat()})

    async def archive(self, request: Request) -> Response:
        """Send older SDKs to a tar file of a checkpoint."""
        ref = _ref(request)
        self.backend.runtime.store.load_manifest(ref)
        url, expires = self.urls.sign(str(request.base_url), ref, ARCHIVE)
        headers = {"Expires": format_datetime(expires, usegmt=True)}
        return RedirectResponse(url, status_code=302, headers=headers)

    async def download(self, request: Request) -> Response:
        """Send the file of a signed URL, which needs no key."""
        try:
            file = self.urls.file(request.path_params["rest"])
        except (NotFoundError, UserError, ValueError) as error:
            return JSONResponse({"detail": str(error)}, status_code=404)
        if file.name == ARCHIVE:
            archive = write_archive(file.parent)
            return FileResponse(archive, background=BackgroundTask(archive.unlink))
        return FileResponse(file)

    # --- sessions ---------------------------------------------------------------------------

    async def list_sessions(self, request: Request) -> Response:
        """List session ids, newest first."""
        page, _ = _page(request, self.backend.sessions.newest_first(), 20)
        return JSONResponse({"sessions": [session.session_id for session in page]})

    async def get_session(self, request: Request) -> Response:
        """Describe a session by what was made in it."""
        session = self.backend.sessions.get(request.path_params["session_id"])
        samplers = [key for key in self.backend.runtime.samplers if _made_in(session, key)]
        reply = {"training_run_ids": self._runs_of(session), "sampler_ids": samplers}
        known = {"user_metadata": session.user_metadata, "display_name": session.display_name}
        return JSONResponse(reply | known)

    async def search_sessions(self, request: Request) -> Response:
        """Find sessions by id, name, project, status or metadata, newest first."""
        wanted = await json_body(request)
        found = [s for s in self.backend.sessions.newest_first() if s.matches(wanted)]
        ids = [session.session_id for session in found]
        after = (wanted.get("cursor") or {}).get("last_session_id")
        start = ids.index(after) + 1 if after in ids else 0
        page = found[start : start + (wanted.get("limit") or 50)]
        cursor = None
        if start + len(page) < len(found):
            last = page[-1]
            created = last.created.isoformat()
            cursor = {"last_created_at": created, "last_session_id": last.session_id}
        summaries = [self._summary(session) for session in page]
        return JSONResponse({"sessions": summaries, "next_cursor": cursor})

    def _summary(self, session: Session) -> dict[str, Any]:
        store = self.backend.runtime.store
        made = [c for run_id in self._runs_of(session) for c in store.checkpoints(run_id)]
        return session.summary(len(made), sum(checkpoint.size_bytes for checkpoint in made))

    def _runs_of(self, session: Session) -> list[str]:
        runs = (run["run_id"] for run in self.backend.runtime.store.runs())
        return [run_id for run_id in runs if _made_in(session, run_id)][::-1]

    async def assign_project(self, request: Request) -> Response:
        """Note which project a session belongs to."""
        session = self.backend.sessions.get(request.path_params["session_id"])
        session.project_id = str((await json_body(request)).get("project_id") or "local")
        return Response(status_code=204)


def _made_in(session: Session, made_id: str) -> bool:
    return made_id.startswith(f"{session.session_id}:")


def _copy_files(source: Path, target: Path) -> None:
    for file in source.iterdir():
        shutil.copyfile(file, target / file.name)


def _ref(request: Request) -> CheckpointRef:
    run_id, segment, name = (request.path_params[key] for key in ("run_id", "segment", "name"))
    return parse_path(f"tinker://{run_id}/{segment}/{name}")


def _page(request: Request, items: Sequence[T], size: int) -> tuple[Sequence[T], dict[str, int]]:
    """Return the requested part of a list, and the cursor that describes it."""
    try:
        limit = int(request.query_params.get("limit", size))
        offset = int(request.query_params.get("offset", 0))
    except ValueError:
        raise UserError("limit and offset must be whole numbers") from None
    if not 1 <= limit <= MAX_PAGE or offset < 0:
        raise UserError(f"limit is {limit}, offset {offset}; allowed: 1 to {MAX_PAGE}, 0 or more")
    cursor = {"offset": offset, "limit": limit, "total_count": len(items)}
    return items[offset : offset + limit], cursor
