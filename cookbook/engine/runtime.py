"""The engine's models and samplers, and every operation on them.

Owns: base weights, training runs, samplers and their decoding batches. Methods named like an
operation run on the worker thread only; what HTTP handlers may read is said to be so.
"""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from cookbook.engine.adam import AdamSettings
from cookbook.engine.base import load_weights
from cookbook.engine.config import read_config
from cookbook.engine.errors import NotFoundError, UserError
from cookbook.engine.generation import GenerationBatch, SampleRequest, SampleResult
from cookbook.engine.linear import multiplies_bfloat16
from cookbook.engine.lora import Adapter, LoraSpec, load_adapter, save_adapter, spec_to_dict
from cookbook.engine.losses import LossCall
from cookbook.engine.memory import give_back
from cookbook.engine.store import EXTERNAL, SAMPLER, TRAINING, CheckpointRef, Store
from cookbook.engine.trainer import LossResult, TrainingDatum, TrainingRun

log = logging.getLogger(__name__)
KEEP_IDLE_SAMPLERS = 2  # 40 MB each at rank 16: the adapter, and its pairs made ready
KEEP_EPHEMERAL = 64  # unnamed sampler snapshots kept on disk per training run


@dataclass(frozen=True)
class Sampler:
    """Weights to sample from: the base model (no folder) or an adapter's folder.

    Attributes:
        sampler_id: the sampling session's id.
        model_path: the `tinker://` path it was made from, if any.
        folder: where the adapter lies; None for the base model.
        spec: the adapter's LoRA settings.
    """

    sampler_id: str
    model_path: str | None = None
    folder: Path | None = None
    spec: LoraSpec | None = None


def pick_device(choice: str) -> str:
    """Return the device to compute on: the choice, or the best one there for `auto`."""
    if choice != "auto":
        return choice
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def pick_dtype(choice: str, device: str) -> torch.dtype:
    """Return the weights' type: for `auto` bfloat16 only where the hardware multiplies it."""
    if choice == "auto":
        native = device == "cuda" or (device == "cpu" and multiplies_bfloat16())
        return torch.bfloat16 if native else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[choice]


class Runtime:
    """All state of one engine process."""

    def __init__(
        self, model_name: str, folder: Path, store: Store, scratch: Path, dtype: str, device: str
    ) -> None:
        self.model_name = model_name
        self.folder = folder
        self.config = read_config(folder)
        self.store = store
        self.scratch = scratch
        self.device = pick_device(device)
        self.dtype = pick_dtype(dtype, self.device)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.base = load_weights(folder, self.config, self.dtype, self.device)
        self.runs: dict[str, TrainingRun] = {}
        self.samplers: dict[str, Sampler] = {}
        self._batches: dict[str, GenerationBatch] = {}  # by sampler id, least recently used first
        self._ephemeral: dict[str, list[str]] = {}

    # --- training -------------------------------------------------------------------------------

    def create_model(
        self, model_id: str, spec: LoraSpec, seed: int | None, metadata: dict[str, str]
    ) -> dict[str, Any]:
        """Start a new training run."""
        adapter = Adapter.new(spec, self.config.linear_shapes(), seed, self.device)
        return self._register(model_id, TrainingRun(self.base, adapter), metadata)

    def create_from_checkpoint(
        self, model_id: str, ref: CheckpointRef, optimizer: bool, metadata: dict[str, str]
    ) -> dict[str, Any]:
        """Start a training run from saved weights, with Adam's state if `optimizer`."""
        run = self._read_state(ref, optimizer)
        return self._register(model_id, run, metadata) | {"path": ref.path}

    def _register(
        self, model_id: str, run: TrainingRun, metadata: dict[str, str]
    ) -> dict[str, Any]:
        self.runs[model_id] = run
        info = {"base_model": self.model_name, "lora": spec_to_dict(run.adapter.spec)}
        self.store.create_run(model_id, {**info, "user_metadata": metadata})
        return {"model_id": model_id}

    def _read_state(self, ref: CheckpointRef, optimizer: bool) -> TrainingRun:
        if ref.segment != TRAINING:
            raise UserError(
                f"{ref.path} holds sampler weights; training continues from a save_state "
                "checkpoint (tinker://.../weights/...)"
            )
        manifest = self._compatible_manifest(ref)
        folder = self.store.folder(ref)
        run = TrainingRun(
            self.base, load_adapter(folder, LoraSpec(**manifest["lora"]), self.device)
        )
        if optimizer:
            run.adam.restore(load_file(folder / "optimizer.safetensors"), manifest["steps"])
        return run

    def _compatible_manifest(self, ref: CheckpointRef) -> dict[str, Any]:
        manifest = self.store.load_manifest(ref)
        if manifest["base_model"] != self.model_name:
            raise UserError(
                f"{ref.path} was trained on {manifest['base_model']}; this engine serves "
                f"{self.model_name}. Start the engine with --model {manifest['base_model']}"
            )
        return manifest

    def run(self, model_id: str) -> TrainingRun:
        """Return a training run by id (HTTP handlers may call this)."""
        if model_id not in self.runs:
            raise NotFoundError(
                f"there is no training run {model_id} on this engine. After a restart of the "
                "engine, or once its client was closed or silent for an hour, make a new client "
                "with create_training_client_from_state"
            )
        return self.runs[model_id]

    def forward_backward(
        self, model_id: str, data: list[TrainingDatum], call: LossCall, forward_only: bool
    ) -> LossResult:
        """Run the model on `data`; unless `forward_only`, add to the run's gradients."""
        run = self.run(model_id)
        return run.forward(data, call) if forward_only else run.forward_backward(data, call)

    def optim_step(self, model_id: str, settings: AdamSettings) -> dict[str, Any]:
        """Apply the accumulated gradients."""
        metrics = self.run(model_id).optim_step(settings)
        give_back()
        return {"metrics": metrics}

    def load_state(self, model_id: str, ref: CheckpointRef, optimizer: bool) -> dict[str, Any]:
        """Replace a run's weights by saved ones (the deprecated `load_state` call)."""
        self.run(model_id)  # an unknown id must not become a run
        self.runs[model_id] = self._read_state(ref, optimizer)
        return {"path": ref.path, "model_id": model_id}

    # --- checkpoints and samplers ---------------------------------------------------------------

    def save_state(self, model_id: str, name: str, **options: Any) -> dict[str, Any]:
        """Write weights and optimizer state."""
        run = self.run(model_id)

        def write(folder: Path) -> None:
            save_adapter(run.adapter, folder, self.model_name)
            state = {name: tensor.cpu().contiguous() for name, tensor in run.adam.state().items()}
            save_file(state, folder / "optimizer.safetensors")

        return self._save(CheckpointRef(model_id, TRAINING, name), run, write, **options)

    def save_for_sampler(self, model_id: str, name: str, **options: Any) -> dict[str, Any]:
        """Write weights alone, under a name."""
        run = self.run(model_id)
        ref = CheckpointRef(model_id, SAMPLER, name)
        return self._save(
            ref, run, lambda folder: save_adapter(run.adapter, folder, self.model_name), **options
        )

    def _save(
        self,
        ref: CheckpointRef,
        run: TrainingRun,
        write: Callable[[Path], None],
        user_metadata: dict[str, str] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        manifest = {
            "base_model": self.model_name,
            "lora": spec_to_dict(run.adapter.spec),
            "steps": run.adam.steps,
            "user_metadata": user_metadata or {},
        }
        return {"path": self.store.save(ref, write, manifest, **options)}

    def save_external(self, model_id: str, name: str, ttl_seconds: int | None) -> dict[str, Any]:
        """Write weights alone, for download."""
        run = self.run(model_id)
        ref = CheckpointRef(model_id, EXTERNAL, name)
        reply = self._save(
            ref,
            run,
            lambda folder: save_adapter(run.adapter, folder, self.model_name),
            ttl_seconds=ttl_seconds,
        )
        return reply | {"size_bytes": self.store.read(ref).size_bytes}

    def snapshot_sampler(self, model_id: str, sampler_id: str) -> dict[str, Any]:
        """Make an unnamed sampler from a run's present weights."""
        run = self.run(model_id)
        folder = self.scratch / sampler_id.replace(":", "_")
        folder.mkdir(parents=True)
        save_adapter(run.adapter, folder, self.model_name)
        self.samplers[sampler_id] = Sampler(sampler_id, None, folder, run.adapter.spec)
        kept = self._ephemeral.setdefault(model_id, [])
        kept.append(sampler_id)
        while len(kept) > KEEP_EPHEMERAL:
            self._drop_sampler(kept.pop(0))
        return {"path": None, "sampling_session_id": sampler_id}

    def release(self, session_id: str) -> None:
        """Give back the training runs and samplers of a session that is over."""
        for model_id in [key for key in self.runs if key.startswith(f"{session_id}:")]:
            del self.runs[model_id]
            self._ephemeral.pop(model_id, None)
        for sampler_id in [key for key in self.samplers if key.startswith(f"{session_id}:")]:
            self._drop_sampler(sampler_id)

    def _drop_sampler(self, sampler_id: str) -> None:
        sampler = self.samplers.pop(sampler_id)
        batch = self._batches.get(sampler_id)
        if batch and batch.idle:
            del self._batches[sampler_id]
        if sampler.folder and sampler.model_path is None:  # else the folder is a checkpoint's
            shutil.rmtree(sampler.folder, ignore_errors=True)

    def open_sampler(self, sampler_id: str, ref: CheckpointRef | None) -> None:
        """Make a sampler of the base model or a checkpoint (HTTP handlers may call this)."""
        if ref is None:
            self.samplers[sampler_id] = Sampler(sampler_id)
            return
        spec = LoraSpec(**self._compatible_manifest(ref)["lora"])
        self.samplers[sampler_id] = Sampler(sampler_id, ref.path, self.store.folder(ref), spec)

    def sampler(self, sampler_id: str) -> Sampler:
        """Return a sampler by id (HTTP handlers may call this)."""
        if sampler_id not in self.samplers:
            raise NotFoundError(
                f"there is no sampler {sampler_id}; the engine keeps the last {KEEP_EPHEMERAL} "
                "unnamed samplers of a run, and forgets them when it restarts. Use "
                "save_weights_for_sampler(name) for lasting ones"
            )
        return self.samplers[sampler_id]

    # --- sampling -------------------------------------------------------------------------------

    def add_sample(
        self,
        sampler_id: str,
        request: SampleRequest,
        done: Callable[[SampleResult | Exception], None],
        is_cancelled: Callable[[], bool],
    ) -> None:
        """Let a request join the decoding batch of its sampler."""
        sampler = self.sampler(sampler_id)
        key = sampler_id if sampler.folder else ""  # all base-model samplers share one batch
        batch = self._batches.pop(key, None) or self._new_batch(sampler)
        self._batches[key] = batch
        batch.add(request, done, is_cancelled)

    def _new_batch(self, sampler: Sampler) -> GenerationBatch:
        idle = [key for key, batch in self._batches.items() if batch.idle]
        for key in idle[: max(0, len(idle) - KEEP_IDLE_SAMPLERS + 1)]:
            del self._batches[key]
        adapter = None
        if sampler.folder and sampler.spec:
            adapter = load_adapter(sampler.folder, sampler.spec, self.device)
        return GenerationBatch(self.base, self.tokenizer, adapter)

    def advance_sampling(self) -> bool:
        """Add one token to every running sequence; return whether there was any."""
        active = [batch for batch in self._batches.values() if not batch.idle]
        for batch in active:
            batch.step()
        return bool(active)
