"""The HTTP side: routes, the key, status codes, and who waits for what.

Owns: sessions and everything a client sees before its work reaches the worker. Handlers never
touch tensors. A training request is never answered with a 4xx: the SDK would wait for ever for the
chunks it holds back, so a bad one gets a future that fails with the reason.
"""

import hmac
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tinker import types

from cookbook.engine import wire
from cookbook.engine.errors import NotFoundError, UserError
from cookbook.engine.futures import Failure, Future, Futures
from cookbook.engine.generation import SampleResult
from cookbook.engine.lora import LoraSpec
from cookbook.engine.runtime import Runtime
from cookbook.engine.scheduler import Scheduler, settle
from cookbook.engine.store import check_name, check_ttl, parse_path
from cookbook.engine.trainer import AdamSettings

HOLD_S = 30.0  # how long an unanswered poll is held; the SDK's own limit is 45
MAX_BODY_BYTES = 64 * 1024 * 1024
PROTOBUF = "application/x-protobuf"
# Makes SDK 0.24 speak the same wire as 0.38; later versions ignore the flags.
CLIENT_CONFIG = {
    "proto_write_fwdbwd": True,
    "fwd_via_fwdbwd": True,
    "create_model_via_load_weights": True,
}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
Handler = Callable[[Request], Awaitable[Response]]
Model = TypeVar("Model", bound=BaseModel)


class Server:
    """HTTP handlers over one runtime."""

    def __init__(self, runtime: Runtime, scheduler: Scheduler, api_key: str) -> None:
        self.runtime = runtime
        self.scheduler = scheduler
        self.api_key = api_key
        self.futures = Futures()
        self.sessions: dict[str, bool] = {}  # session id -> still open
        self._sampling_sessions: dict[tuple[str, int], str] = {}

    def app(self) -> Starlette:
        """Return the ASGI application."""
        posts: dict[str, Handler] = {
            "client/config": self.client_config,
            "client/dynamic_config": self.empty,
            "telemetry": self.telemetry,
            "create_session": self.create_session,
            "session_heartbeat": self.heartbeat,
            "sessions/{session_id}/finish": self.finish_session,
            "create_model": self.create_model,
            "get_info": self.get_info,
            "forward_backward": self.forward_backward,
            "optim_step": self.optim_step,
            "save_weights": self.save_weights,
            "save_weights_for_sampler": self.save_weights_for_sampler,
            "save_weights_external": self.save_weights_external,
            "load_weights": self.load_weights,
            "create_sampling_session": self.create_sampling_session,
            "asample": self.sample,
            "retrieve_future": self.retrieve_future,
            "weights_info": self.weights_info,
        }
        gets: dict[str, Handler] = {
            "get_server_capabilities": self.capabilities,
            "samplers/{sampler_id:path}": self.get_sampler,
        }
        routes = [Route("/api/v1/healthz", self.health, methods=["GET"])]
        for method, handlers in (("POST", posts), ("GET", gets)):
            routes += [
                Route(f"/api/v1/{path}", self._guarded(handler), methods=[method])
                for path, handler in handlers.items()
            ]
        unknown = self._guarded(self.unknown_route)
        routes.append(Route("/api/v1/{path:path}", unknown, methods=list(METHODS)))
        return Starlette(routes=routes)

    def _guarded(self, handler: Handler) -> Handler:
        """Wrap a handler with the key check and the mapping from errors to status codes."""

        async def guarded(request: Request) -> Response:
            key = request.headers.get("x-api-key", "")
            if not hmac.compare_digest(key.encode(), self.api_key.encode()):
                text = "the X-API-Key header is missing or not this engine's key"
                return _problem(401, text)
            size = int(request.headers.get("content-length") or 0)
            if size > MAX_BODY_BYTES and handler != self.forward_backward:
                return _problem(413, _too_large(size))
            try:
                return await handler(request)
            except NotFoundError as error:
                return _problem(404, str(error))
            except UserError as error:
                return _problem(400, str(error))
            except ValidationError as error:
                return _problem(422, _validation_text(error))

        return guarded

    # --- sessions ---------------------------------------------------------------------------

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

    async def empty(self, request: Request) -> Response:
        """Answer that all defaults hold."""
        return JSONResponse({})

    async def telemetry(self, request: Request) -> Response:
        """Accept and forget: nothing about the user is kept."""
        return JSONResponse({"status": "accepted"})

    async def capabilities(self, request: Request) -> Response:
        """List the one base model that this engine serves."""
        model = {
            "model_name": self.runtime.model_name,
            "max_context_length": self.runtime.config.context,
            "trainable": True,
            "sampleable": True,
        }
        return JSONResponse({"supported_models": [model]})

    async def create_session(self, request: Request) -> Response:
        """Start a session."""
        session_id = f"s{uuid.uuid4().hex[:16]}"
        self.sessions[session_id] = True
        return JSONResponse({"session_id": session_id, "type": "create_session"})

    def _check_session(self, session_id: str) -> None:
        if session_id not in self.sessions:
            raise NotFoundError(
                f"there is no session {session_id}; this engine may have restarted: make a new "
                "ServiceClient"
            )

    async def heartbeat(self, request: Request) -> Response:
        """Confirm that a session lives; 410 stops the client's heartbeat."""
        session_id = str((await _json(request)).get("session_id"))
        self._check_session(session_id)
        if not self.sessions[session_id]:
            return _problem(410, f"session {session_id} was finished")
        return JSONResponse({"type": "session_heartbeat"})

    async def finish_session(self, request: Request) -> Response:
        """End a session; a second time changes nothing."""
        session_id = request.path_params["session_id"]
        self._check_session(session_id)
        self.sessions[session_id] = False
        return JSONResponse({})

    # --- models -----------------------------------------------------------------------------

    def _check_base_model(self, name: str | None) -> None:
        if name not in (None, self.runtime.model_name, str(self.runtime.folder)):
            raise UserError(
                f"base model is {name!r}; this engine serves {self.runtime.model_name!r} only. "
                f"Start one for another model with: python -m cookbook.engine --model {name}"
            )

    async def create_model(self, request: Request) -> Response:
        """Queue a new training run."""
        body = _parse(types.CreateModelRequest, await _json(request))
        self._check_session(body.session_id)
        self._check_base_model(body.base_model)
        kind = getattr(body.optimizer_config, "type", "adamw")
        if kind != "adamw":
            raise UserError(f"optimizer is {kind!r}; this engine has adamw")
        lora = body.lora_config or types.LoraConfig(rank=32)
        spec = LoraSpec(**{name: getattr(lora, name) for name in LoraSpec.__dataclass_fields__})
        metadata = _strings(body.user_metadata)
        model_id = f"{body.session_id}:train:{body.model_seq_id}"
        return self._queue(
            ("create", model_id),
            lambda: self.runtime.create_model(model_id, spec, lora.seed, metadata),
            model_id=model_id,
        )

    async def load_weights(self, request: Request) -> Response:
        """Queue a run from a checkpoint, or (deprecated form) reload an existing run."""
        body = _parse(types.LoadWeightsRequest, await _json(request))
        if body.session_id is None:
            return self._queue_ordered(
                body,
                lambda: self.runtime.load_state(
                    str(body.model_id), parse_path(body.path), body.optimizer
                ),
            )
        self._check_session(body.session_id)
        self._check_base_model(body.base_model)
        ref = parse_path(body.path)
        self.runtime.store.load_manifest(ref)  # a missing checkpoint is a 404 at once
        metadata = _strings(body.user_metadata)
        model_id = f"{body.session_id}:train:{body.model_seq_id}"
        return self._queue(
            ("create", model_id),
            lambda: self.runtime.create_from_checkpoint(model_id, ref, body.optimizer, metadata),
            model_id=model_id,
        )

    async def get_info(self, request: Request) -> Response:
        """Describe a training run."""
        model_id = str((await _json(request)).get("model_id"))
        run = self.runtime.run(model_id)
        data = {
            "arch": "llama",
            "model_name": self.runtime.model_name,
            "tokenizer_id": str(self.runtime.folder),
        }
        return JSONResponse(
            {
                "model_id": model_id,
                "model_data": data,
                "model_name": self.runtime.model_name,
                "is_lora": True,
                "lora_rank": run.adapter.spec.rank,
            }
        )

    async def weights_info(self, request: Request) -> Response:
        """Describe a checkpoint."""
        manifest = self.runtime.store.load_manifest(
            parse_path(str((await _json(request)).get("tinker_path")))
        )
        lora = dict(manifest["lora"])
        info = {"base_model": manifest["base_model"], "is_lora": True}
        return JSONResponse(info | {"lora_rank": lora.pop("rank")} | lora)

    # --- training ---------------------------------------------------------------------------

    def _queue(self, key: tuple, work: Callable[[], Any], **reply: Any) -> Response:
        """Submit work without an order; a repeated submission gets the first one's reply."""
        future = self.futures.repeated(key)
        if future is None:
            future = self.futures.new(key, **reply)
            self.scheduler.submit(future, work)
        return JSONResponse(future.reply)

    def _queue_ordered(self, body: Any, work: Callable[[], Any]) -> Response:
        """Submit training work that runs by its model's sequence number."""
        model_id, seq_id = body.model_id, body.seq_id
        if not isinstance(model_id, str) or not isinstance(seq_id, int) or seq_id < 1:
            raise UserError(
                f"model_id is {model_id!r} and seq_id {seq_id!r}; a training request needs a "
                "model's id and a number from 1"
            )
        key = ("train", model_id, seq_id)
        future = self.futures.repeated(key)
        if future is None:
            future = self.futures.new(key, model_id=model_id)
            if model_id in self.runtime.runs:
                self.scheduler.submit_ordered(model_id, seq_id, future, work)
            else:  # of an engine before this one: its earlier numbers will never come
                settle(future, lambda: self.runtime.run(model_id) and {})
        return JSONResponse(future.reply)

    async def forward_backward(self, request: Request) -> Response:
        """Queue a forward (and backward) pass."""
        body = await request.body()
        message = wire.parse_forward_backward(body)

        def work() -> bytes:
            if len(body) > MAX_BODY_BYTES:
                raise UserError(_too_large(len(body)))
            data, loss = wire.training_data(message, self.runtime.config)
            result = self.runtime.forward_backward(
                message.model_id, data, loss, message.forward_only
            )
            return wire.loss_reply(result)

        return self._queue_ordered(message, work)

    async def optim_step(self, request: Request) -> Response:
        """Queue an optimiser step."""
        raw = await _json(request)

        def work() -> dict[str, Any]:
            body = _parse(types.OptimStepRequest, raw)
            if not isinstance(body.optim_params, types.AdamParams):
                raise UserError("this engine's optimizer is adamw; send AdamParams")
            names = AdamSettings.__dataclass_fields__
            settings = AdamSettings(**{name: getattr(body.optim_params, name) for name in names})
            return self.runtime.optim_step(body.model_id, settings)

        return self._queue_ordered(_Addressed(raw), work)

    async def save_weights(self, request: Request) -> Response:
        """Queue a training checkpoint."""
        raw = await _json(request)

        def work() -> dict[str, Any]:
            body = _parse(types.SaveWeightsRequest, raw)
            check_ttl(body.ttl_seconds)
            return self.runtime.save_state(
                body.model_id,
                check_name(body.path or ""),
                overwrite=bool(raw.get("overwrite")),
                ttl_seconds=body.ttl_seconds,
                user_metadata=raw.get("user_metadata"),
            )

        return self._queue_ordered(_Addressed(raw), work)

    async def save_weights_for_sampler(self, request: Request) -> Response:
        """Queue a sampler checkpoint, named and lasting or unnamed and of this session."""
        raw = await _json(request)

        def work() -> dict[str, Any]:
            body = _parse(types.SaveWeightsForSamplerRequest, raw)
            check_ttl(body.ttl_seconds)
            if raw.get("kind", "snapshot") != "snapshot":
                raise UserError(f"kind is {raw['kind']!r}; this engine makes snapshots only")
            if body.path is None:
                session_id = body.model_id.split(":")[0]
                sampler_id = f"{session_id}:sample:{body.sampling_session_seq_id}"
                return self.runtime.snapshot_sampler(body.model_id, sampler_id)
            return self.runtime.save_for_sampler(
                body.model_id,
                check_name(body.path),
                ttl_seconds=body.ttl_seconds,
                user_metadata=raw.get("user_metadata"),
            )

        return self._queue_ordered(_Addressed(raw), work)

    async def save_weights_external(self, request: Request) -> Response:
        """Refuse an export, in its turn: a missing number would hold up every later request."""

        def work() -> dict[str, Any]:
            raise UserError(
                "this engine has no external export; every checkpoint of save_state and "
                f"save_weights_for_sampler is a PEFT folder below {self.runtime.store.root}"
            )

        return self._queue_ordered(_Addressed(await _json(request)), work)

    # --- sampling ---------------------------------------------------------------------------

    async def create_sampling_session(self, request: Request) -> Response:
        """Make a sampler of the base model or of a checkpoint."""
        body = _parse(types.CreateSamplingSessionRequest, await _json(request))
        self._check_session(body.session_id)
        key = (body.session_id, body.sampling_session_seq_id)
        if key not in self._sampling_sessions:
            if body.model_path is None:
                self._check_base_model(body.base_model)
            sampler_id = f"{body.session_id}:sample:{body.sampling_session_seq_id}"
            ref = parse_path(body.model_path) if body.model_path else None
            self.runtime.open_sampler(sampler_id, ref)
            self._sampling_sessions[key] = sampler_id
        return JSONResponse({"sampling_session_id": self._sampling_sessions[key]})

    async def get_sampler(self, request: Request) -> Response:
        """Describe a sampler; its base model is a folder, so that tokenizers load offline."""
        sampler = self.runtime.sampler(request.path_params["sampler_id"])
        reply = {"sampler_id": sampler.sampler_id, "base_model": str(self.runtime.folder)}
        return JSONResponse(reply | {"model_path": sampler.model_path})

    async def sample(self, request: Request) -> Response:
        """Queue a sampling request; a bad one is refused at once (sampling has no order)."""
        body = await _json(request)
        sampler_id, seq_id = str(body.get("sampling_session_id")), body.get("seq_id")
        self.runtime.sampler(sampler_id)
        key = ("sample", sampler_id, seq_id)
        future = self.futures.repeated(key)
        if future is None:
            _parse(types.SampleRequest, body)  # types; the values are checked next
            wanted = wire.sample_request(body, self.runtime.config)
            ids = [f"{sampler_id}:{seq_id}:{i}" for i in range(wanted.num_samples)]
            future = self.futures.new(key, sample_sequence_ids=ids)
            done = _sample_callback(future)
            self.scheduler.call(lambda: self._add_sample(sampler_id, wanted, done))
        return JSONResponse(future.reply)

    def _add_sample(
        self, sampler_id: str, wanted: Any, done: Callable[[SampleResult | Exception], None]
    ) -> None:
        try:
            self.runtime.add_sample(sampler_id, wanted, done)
        except Exception as error:
            done(error)
            raise

    # --- results ----------------------------------------------------------------------------

    async def retrieve_future(self, request: Request) -> Response:
        """Hold the poll until the result is there; 408 means ask again."""
        request_id = str((await _json(request)).get("request_id"))
        future = self.futures.get(request_id)
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


class _Addressed:
    """The model and sequence number of a JSON training request whose rest is checked later."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.model_id, self.seq_id = raw.get("model_id"), raw.get("seq_id")


def _sample_callback(future: Future) -> Callable[[SampleResult | Exception], None]:
    def done(result: SampleResult | Exception) -> None:
        if isinstance(result, UserError):
            future.resolve(Failure(str(result), "user"))
        elif isinstance(result, Exception):
            future.resolve(Failure(f"engine error: {type(result).__name__}: {result}", "server"))
        else:
            future.resolve(wire.sample_reply(result))

    return done


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError as error:
        raise UserError(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise UserError(f"the body is a JSON {type(body).__name__}; it must be an object")
    return body


def _too_large(size: int) -> str:
    return f"the body has {size} bytes; at most {MAX_BODY_BYTES} are taken. Send less at a time"


def _parse(model: type[Model], raw: Any) -> Model:
    """Validate a JSON body; inside a future the error becomes the future's text."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise UserError(_validation_text(error)) from None


def _validation_text(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']} (got {first.get('input')!r})"


def _strings(metadata: dict[str, Any] | None) -> dict[str, str]:
    return {key: str(value) for key, value in (metadata or {}).items()}


def _problem(status: int, text: str) -> Response:
    return JSONResponse({"detail": text}, status_code=status)
