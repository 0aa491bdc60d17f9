"""Sampling requests: samplers of the base model or of a checkpoint, and what they generate.

Owns: refusing a bad request at once, since sampling has no order that a refusal could hold up.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tinker import types

from cookbook.engine import wire_sampling
from cookbook.engine.backend import Backend
from cookbook.engine.errors import UserError
from cookbook.engine.futures import Failure, Future
from cookbook.engine.generation import SampleRequest, SampleResult
from cookbook.engine.http import RouteTable, json_body, parse
from cookbook.engine.store import parse_path


class SamplingRoutes:
    """Handlers of everything a sampling client sends."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.runtime = backend.runtime
        self._sampling_sessions: dict[tuple[str, int], str] = {}

    def routes(self) -> RouteTable:
        """Return the handlers by method and path below ``/api/v1/``."""
        return {
            ("POST", "create_sampling_session"): self.create_sampling_session,
            ("POST", "asample"): self.sample,
            ("GET", "samplers/{sampler_id:path}"): self.get_sampler,
        }

    async def create_sampling_session(self, request: Request) -> Response:
        """Make a sampler of the base model or of a checkpoint."""
        body = parse(types.CreateSamplingSessionRequest, await json_body(request))
        self.backend.sessions.hear(body.session_id)
        key = (body.session_id, body.sampling_session_seq_id)
        if key not in self._sampling_sessions:
            if body.model_path is None:
                self.backend.check_base_model(body.base_model)
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
        body = await json_body(request)
        sampler_id, seq_id = str(body.get("sampling_session_id")), body.get("seq_id")
        self.runtime.sampler(sampler_id)
        key = ("sample", sampler_id, seq_id)
        future = self.backend.futures.repeated(key)
        if future is None:
            parse(types.SampleRequest, body)  # types; the values are checked next
            wanted = wire_sampling.sample_request(body, self.runtime.config)
            ids = [f"{sampler_id}:{seq_id}:{i}" for i in range(wanted.num_samples)]
            future = self.backend.futures.new(key, sample_sequence_ids=ids)
            self.backend.scheduler.call(lambda: self._add_sample(sampler_id, wanted, future, body))
        return JSONResponse(future.reply)

    def _add_sample(
        self, sampler_id: str, wanted: SampleRequest, future: Future, body: dict[str, Any]
    ) -> None:
        def done(result: SampleResult | Exception) -> None:
            if isinstance(result, UserError):
                future.resolve(Failure(str(result), "user"))
            elif isinstance(result, Exception):
                text = f"engine error: {type(result).__name__}: {result}"
                future.resolve(Failure(text, "server"))
            else:
                future.resolve(wire_sampling.sample_reply(result, body))

        try:
            self.runtime.add_sample(sampler_id, wanted, done, lambda: future.cancelled)
        except Exception as error:
            done(error)
            raise
