"""Training requests: models, forward and backward passes, optimiser steps, checkpoints.

Owns: turning each into work for the worker. A request of a training run's sequence is never
answered with a 4xx: the SDK would wait for ever for the chunks it holds back, so a bad one gets a
future that fails with the reason.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tinker import types

from cookbook.engine import wire_training
from cookbook.engine.adam import AdamSettings
from cookbook.engine.backend import Backend
from cookbook.engine.errors import UserError
from cookbook.engine.http import MAX_BODY_BYTES, RouteTable, json_body, parse, strings, too_large
from cookbook.engine.lora import LoraSpec
from cookbook.engine.store import check_name, check_ttl, parse_path


class TrainingRoutes:
    """Handlers of everything a training client sends."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.runtime = backend.runtime

    def routes(self) -> RouteTable:
        """Return the handlers by method and path below ``/api/v1/``."""
        return {
            ("POST", "create_model"): self.create_model,
            ("POST", "load_weights"): self.load_weights,
            ("POST", "get_info"): self.get_info,
            ("POST", "forward_backward"): self.forward_backward,
            ("POST", "optim_step"): self.optim_step,
            ("POST", "save_weights"): self.save_weights,
            ("POST", "save_weights_for_sampler"): self.save_weights_for_sampler,
            ("POST", "save_weights_external"): self.save_weights_external,
        }

    async def create_model(self, request: Request) -> Response:
        """Queue a new training run."""
        body = parse(types.CreateModelRequest, await json_body(request))
        self.backend.sessions.hear(body.session_id)
        self.backend.check_base_model(body.base_model)
        kind = getattr(getattr(body, "optimizer_config", None), "type", "adamw")
        if kind != "adamw":
            raise UserError(f"optimizer is {kind!r}; this engine has adamw")
        lora = body.lora_config or types.LoraConfig(rank=32)
        spec = LoraSpec(**{name: getattr(lora, name) for name in LoraSpec.__dataclass_fields__})
        metadata = strings(body.user_metadata)
        model_id = f"{body.session_id}:train:{body.model_seq_id}"
        return self.backend.queue(
            ("create", model_id),
            lambda: self.runtime.create_model(model_id, spec, lora.seed, metadata),
            model_id=model_id,
        )

    async def load_weights(self, request: Request) -> Response:
        """Queue a run from a checkpoint, or (deprecated form) reload an existing run."""
        body = parse(types.LoadWeightsRequest, await json_body(request))
        if body.session_id is None:
            return self.backend.queue_ordered(
                body,
                lambda: self.runtime.load_state(
                    str(body.model_id), parse_path(body.path), body.optimizer
                ),
            )
        self.backend.sessions.hear(body.session_id)
        self.backend.check_base_model(body.base_model)
        ref = parse_path(body.path)
        self.runtime.store.load_manifest(ref)  # a missing checkpoint is a 404 at once
        metadata = strings(body.user_metadata)
        model_id = f"{body.session_id}:train:{body.model_seq_id}"
        return self.backend.queue(
            ("create", model_id),
            lambda: self.runtime.create_from_checkpoint(model_id, ref, body.optimizer, metadata),
            model_id=model_id,
        )

    async def get_info(self, request: Request) -> Response:
        """Describe a training run."""
        model_id = str((await json_body(request)).get("model_id"))
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

    async def forward_backward(self, request: Request) -> Response:
        """Queue a forward (and backward) pass."""
        body = await request.body()
        message = wire_training.parse_forward_backward(body)

        def work() -> bytes:
            if len(body) > MAX_BODY_BYTES:
                raise UserError(too_large(len(body)))
            data, call = wire_training.training_data(message, self.runtime.config)
            result = self.runtime.forward_backward(
                message.model_id, data, call, message.forward_only
            )
            return wire_training.loss_reply(result)

        return self.backend.queue_ordered(message, work)

    async def optim_step(self, request: Request) -> Response:
        """Queue an optimiser step."""
        raw = await json_body(request)

        def work() -> dict[str, Any]:
            body = parse(types.OptimStepRequest, raw)
            sent: Any = body
            params = sent.optim_params if hasattr(sent, "optim_params") else sent.adam_params
            if not isinstance(params, types.AdamParams):
                raise UserError("this engine's optimizer is adamw; send AdamParams")
            names = AdamSettings.__dataclass_fields__
            settings = AdamSettings(**{name: getattr(params, name) for name in names})
            return self.runtime.optim_step(body.model_id, settings)

        return self.backend.queue_ordered(_Addressed(raw), work)

    async def save_weights(self, request: Request) -> Response:
        """Queue a training checkpoint."""
        raw = await json_body(request)

        def work() -> dict[str, Any]:
            body = parse(types.SaveWeightsRequest, raw)
            check_ttl(body.ttl_seconds)
            return self.runtime.save_state(
                body.model_id,
                check_name(body.path or ""),
                overwrite=bool(raw.get("overwrite")),
                ttl_seconds=body.ttl_seconds,
                user_metadata=raw.get("user_metadata"),
            )

        return self.backend.queue_ordered(_Addressed(raw), work)

    async def save_weights_for_sampler(self, request: Request) -> Response:
        """Queue a sampler checkpoint, named and lasting or unnamed and of this session."""
        raw = await json_body(request)

        def work() -> dict[str, Any]:
            body = parse(types.SaveWeightsForSamplerRequest, raw)
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

        return self.backend.queue_ordered(_Addressed(raw), work)

    async def save_weights_external(self, request: Request) -> Response:
        """Queue an export: the adapter alone, as a PEFT folder that can be downloaded."""
        raw = await json_body(request)

        def work() -> dict[str, Any]:
            body = parse(types.SaveWeightsExternalRequest, raw)
            check_ttl(body.ttl_seconds)
            if body.age_encryption_recipients:
                raise UserError("this engine does not encrypt exports; leave the recipients out")
            return self.runtime.save_external(
                body.model_id, check_name(body.path), body.ttl_seconds
            )

        return self.backend.queue_ordered(_Addressed(raw), work)


class _Addressed:
    """The model and sequence number of a JSON training request whose rest is checked later."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.model_id, self.seq_id = raw.get("model_id"), raw.get("seq_id")
