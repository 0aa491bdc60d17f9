"""The application: routes, sessions, and who waits for what.

Owns: everything a client sees before and after its work is with the worker.
"""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cookbook.engine.backend import Backend
from cookbook.engine.errors import NotFoundError
from cookbook.engine.file_urls import FILES, FileUrls
from cookbook.engine.futures import Failure
from cookbook.engine.http import RouteTable, guarded, json_body, problem, strings
from cookbook.engine.rest_routes import RestRoutes
from cookbook.engine.runtime import Runtime
from cookbook.engine.sampling_routes import SamplingRoutes
from cookbook.engine.scheduler import Scheduler
from cookbook.engine.training_routes import TrainingRoutes

HOLD_S = 30.0  # how long an unanswered poll is held; the SDK's own limit is 45
PROTOBUF = "application/x-protobuf"
# Makes SDK 0.24 speak the same wire as 0.38; later versions ignore the flags.
CLIENT_CONFIG = {
    "proto_write_fwdbwd": True,
    "fwd_via_fwdbwd": True,
    "create_model_via_load_weights": True,
}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def application(runtime: Runtime, scheduler: Scheduler, api_key: str) -> Starlette:
    """Return the ASGI application of an engine."""
    backend = Backend(runtime, scheduler)
    server, training, sampling = Server(backend), TrainingRoutes(backend), SamplingRoutes(backend)
    rest = RestRoutes(backend, FileUrls(runtime.store, api_key))
    tables = [server.routes(), training.routes(), sampling.routes(), rest.routes()]
    routes = [
        Route("/api/v1/healthz", server.health, methods=["GET"]),
        Route(f"/{FILES}/{{rest:path}}", rest.download, methods=["GET"]),  # its URL is its key
    ]
    for (method, path), handler in (entry for table in tables for entry in table.items()):
        own_limit = handler == training.forward_backward  # refused in its turn, by its future
        endpoint = guarded(handler, api_key, checks_size=own_limit)
        routes.append(Route(f"/api/v1/{path}", endpoint, methods=[method]))
    unknown = guarded(server.unknown_route, api_key)
    routes.append(Route("/api/v1/{path:path}", unknown, methods=list(METHODS)))
    return Starlette(routes=routes)


class Server:
    """Handlers of sessions, capabilities and results."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def routes(self) -> RouteTable:
        """Return the handlers by method and path below ``/api/v1/``."""
        return {
            ("POST", "client/config"): self.client_config,
            ("POST", "client/dynamic_config"): self.dynamic_config,
            ("POST", "telemetry"): self.telemetry,
            ("POST", "create_session"): self.create_session,
            ("POST", "session_heartbeat"): self.heartbeat,
            ("POST", "sessions/{session_id}/finish"): self.finish_session,
            ("POST", "retrieve_future"): self.retrieve_future,
            ("POST", "cancel_future"): self.cancel_future,
            ("GET", "get_server_capabilities"): self.capabilities,
        }

    async def health(self, request: Request) -> Response:
        """Say that the engine is up; the only route that needs no key."""
        return JSONResponse({"status": "ok"})

    async def unknown_route(self, request: Request) -> Response:
        """Refuse what this engine has no route for."""
        call = f"{request.method} {request.path_params['path']}"
        raise NotFoundError(
            f"this engine does not serve {call}; its documentation (docs/engine.md) lists every "
            "call it serves"
        )

    async def client_config(self, request: Request) -> Response:
        """Tell the SDK which optional features to use."""
        return JSONResponse(CLIENT_CONFIG)

    async def dynamic_config(self, request: Request) -> Response:
        """Ask the SDK to say when it stops waiting for a sample."""
        return JSONResponse({"sample_cancel_enabled": True})

    async def telemetry(self, request: Request) -> Response:
        """Accept and forget: nothing about the user is kept."""
        return JSONResponse({"status": "accepted"})

    async def capabilities(self, request: Request) -> Response:
        """List the one base model that this engine serves."""
        runtime = self.backend.runtime
        model = {
            "model_name": runtime.model_name,
            "max_context_length": runtime.config.context,
            "trainable": True,
            "sampleable": True,
        }
        return JSONResponse({"supported_models": [model]})

    async def create_session(self, request: Request) -> Response:
        """Start a session."""
        body = await json_body(request)
        self.backend.release_gone_sessions()
        session = self.backend.sessions.open(
            display_name=body.get("display_name"),
            project_id=body.get("project_id") or "local",
            user_metadata=strings(body.get("user_metadata")),
        )
        return JSONResponse({"session_id": session.session_id, "type": "create_session"})

    async def heartbeat(self, request: Request) -> Response:
        """Confirm that a session lives; 410 stops the client's heartbeat."""
        session = self.backend.sessions.hear(str((await json_body(request)).get("session_id")))
        self.backend.release_gone_sessions()
        if not session.active:
            return problem(410, f"session {session.session_id} was finished")
        return JSONResponse({"type": "session_heartbeat"})

    async def finish_session(self, request: Request) -> Response:
        """End a session; a second time changes nothing."""
        session = self.backend.sessions.get(request.path_params["session_id"])
        body = await json_body(request)
        if session.active:
            reason = body.get("reason") or {"type": "success"}
            detail = body.get("detail")
            session.status = {"type": "client_finished", "reason": reason, "detail": detail}
        self.backend.release_gone_sessions()
        return JSONResponse({})

    async def cancel_future(self, request: Request) -> Response:
        """Drop a sampling request that nobody waits for; training requests run all the same."""
        request_id = str((await json_body(request)).get("request_id"))
        future = self.backend.futures.get(request_id)
        if future and "sample_sequence_ids" in future.reply:
            future.cancel()
        return JSONResponse({})

    async def retrieve_future(self, request: Request) -> Response:
        """Hold the poll until the result is there; 408 means ask again."""
        request_id = str((await json_body(request)).get("request_id"))
        future = self.backend.futures.get(request_id)
        if future is None:
            raise NotFoundError(f"there is no request {request_id}; it was fetched or never made")
        result = await future.wait(HOLD_S)
        if result is None:
            return JSONResponse({"queue_state": "active"}, status_code=408)
        if isinstance(result, bytes):
            return Response(result, media_type=PROTOBUF)
        if isinstance(result, Failure):
            return JSONResponse({"error": result.text, "category": result.category})
        return JSONResponse(result)
