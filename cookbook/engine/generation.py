"""Continuous batching: many requests of one model decoded together, joining and leaving freely.

Owns: the running sequences of one set of weights and their cache slots. A request's prompt is
computed once and its keys and values are copied to each of its samples.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from tokenizers import Tokenizer

from cookbook.engine.attention import KVCache
from cookbook.engine.base import Weights
from cookbook.engine.decoder import decode_step, forward_packed
from cookbook.engine.linear import project
from cookbook.engine.logprobs import constant_logprobs, log_normalizers
from cookbook.engine.lora import Adapter
from cookbook.engine.packing import pack
from cookbook.engine.sampling import SamplingSettings, Sequence, choose, new_sequence

HEAD_ROWS = 256  # prompt rows whose logits are held at once
PREFILL_ROWS = 1024  # prompt tokens that join in one step


@dataclass(frozen=True)
class TopK:
    """The k most likely tokens of some positions (rows, k); None rows have no context."""

    tokens: np.ndarray
    logprobs: np.ndarray


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """One validated request.

    Attributes:
        prompt: (P,) int64 token ids, at least one.
        num_samples: sequences to draw.
        prompt_logprobs: also score the prompt's own tokens.
        topk_prompt: also return the k most likely tokens at each prompt position.
    """

    prompt: np.ndarray
    num_samples: int
    settings: SamplingSettings
    prompt_logprobs: bool = False
    topk_prompt: int = 0


@dataclass(frozen=True)
class SampleResult:
    """The sampled sequences, and the scored prompt where asked for."""

    sequences: list[Sequence]
    prompt_logprobs: np.ndarray | None  # (P,) float32, first entry NaN
    topk_prompt: TopK | None  # (P, k), first row undefined


@dataclass(eq=False)
class _Job:
    request: SampleRequest
    done: Callable[[SampleResult | Exception], None]
    sequences: list[Sequence] = field(default_factory=list)
    prompt_logprobs: np.ndarray | None = None
    topk_prompt: TopK | None = None


class GenerationBatch:
    """All running sequences of one set of weights; slot i of the cache belongs to `running[i]`."""

    def __init__(
        self, weights: Weights, tokenizer: Tokenizer, adapter: Adapter | None = None
    ) -> None:
        self.weights = weights
        self.adapter = adapter
        self.tokenizer = tokenizer
        self.cache = self._empty_cache()
        self.running: list[tuple[Sequence, _Job]] = []
        self.waiting: deque[_Job] = deque()
        self.admitted: list[_Job] = []

    def _empty_cache(self) -> KVCache:
        return KVCache(self.weights.config, self.weights.embedding.dtype, self.weights.device)

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not self.running and not self.waiting

    def add(self, request: SampleRequest, done: Callable[[SampleResult | Exception], None]) -> None:
        """Queue a request; `done` is called once: when its last sequence ended, or on failure."""
        self.waiting.append(_Job(request, done))

    def step(self) -> None:
        """Admit what waits, or add one token to every running sequence."""
        try:
            with torch.inference_mode():
                if self.waiting:
                    self._prefill(self._take_waiting())
                elif self.running:
                    self._decode()
                self._retire()
        except Exception as error:
            self._fail_all(error)
            raise

    def _take_waiting(self) -> list[_Job]:
        """Return as many waiting jobs as fit one prefill; always at least one."""
        taken, rows = [], 0
        while self.waiting and (
            not taken or rows + len(self.waiting[0].request.prompt) <= PREFILL_ROWS
        ):
            job = self.waiting.popleft()
            self.admitted.append(job)
            taken.append(job)
            rows += len(job.request.prompt)
        return taken

    def _fail_all(self, error: Exception) -> None:
        for job in [*self.admitted, *self.waiting]:
            job.done(error)
        self.running, self.admitted = [], []
        self.waiting.clear()

    def _prefill(self, jobs: list[_Job]) -> None:
        batch = pack([job.request.prompt for job in jobs]).to(self.weights.device)
        rows = [torch.from_numpy(r).to(self.weights.device) for r in batch.rows]
        first = len(self.running)
        slots: list[slice] = []  # each job's slots in the cache
        for job in jobs:
            job.sequences = [
                new_sequence(job.request.settings, i) for i in range(job.request.num_samples)
            ]
            slots.append(slice(len(self.running), len(self.running) + len(job.sequences)))
            self.running += [(sequence, job) for sequence in job.sequences]
        self.cache.reserve(len(self.running), max(len(r) for r in rows) + 1)

        def store(layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
            for where, r in zip(slots, rows, strict=True):
                self.cache.write_prompt(layer, where, k[r], v[r])

        hidden = forward_packed(self.weights, batch, self.adapter, sink=store)
        self._score_prompts(jobs, hidden, rows)
        last = torch.cat(
            [r[-1:].expand(len(job.sequences)) for job, r in zip(jobs, rows, strict=True)]
        )
        self._accept(hidden[last], self.running[first:])

    def _score_prompts(
        self, jobs: list[_Job], hidden: torch.Tensor, rows: list[torch.Tensor]
    ) -> None:
        """Compute what the requests want to know about their own prompts."""
        asked = [(job, r) for job, r in zip(jobs, rows, strict=True) if job.request.prompt_logprobs]
        if asked:
            targets = np.concatenate([job.request.prompt[1:] for job, _ in asked])
            scores = constant_logprobs(
                self.weights,
                self.adapter,
                hidden,
                torch.cat([r[:-1] for _, r in asked]),
                torch.from_numpy(targets).to(hidden.device),
            ).cpu()
            lengths = [len(r) - 1 for _, r in asked]
            for (job, _), part in zip(asked, scores.split(lengths), strict=True):
                # The first token has no context, hence no probability.
                job.prompt_logprobs = np.concatenate([[np.nan], part.numpy()]).astype(np.float32)
        for job, r in zip(jobs, rows, strict=True):
            if job.request.topk_prompt:
                job.topk_prompt = self._topk(hidden, r, job.request.topk_prompt)

    def _topk(self, hidden: torch.Tensor, rows: torch.Tensor, k: int) -> TopK:
        top_tokens = np.zeros((len(rows), k), np.int32)
        top_scores = np.full((len(rows), k), np.nan, np.float32)
        for start in range(0, len(rows) - 1, HEAD_ROWS):
            logits = self._logits(hidden[rows[:-1][start : start + HEAD_ROWS]])
            values, tokens = logits.topk(k, dim=-1)
            here = slice(start + 1, start + 1 + len(logits))
            top_tokens[here] = tokens.cpu().numpy()
            top_scores[here] = (values - log_normalizers(logits)[:, None]).cpu().numpy()
        return TopK(top_tokens, top_scores)

    def _decode(self) -> None:
        prompts = [len(job.request.prompt) for _, job in self.running]
        positions = [
            length + len(sequence.tokens) - 1
            for length, (sequence, _) in zip(prompts, self.running, strict=True)
        ]
        self.cache.reserve(len(self.running), max(positions) + 1)
        device = self.weights.device
        tokens = torch.tensor([sequence.tokens[-1] for sequence, _ in self.running], device=device)
        where = torch.tensor(positions, device=device)
        hidden = decode_step(self.weights, self.cache, tokens, where, self.adapter)
        self._accept(hidden, self.running)

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return project(hidden, self.weights.unembedding, self.adapter, "lm_head").float()

    def _accept(self, hidden: torch.Tensor, members: list[tuple[Sequence, _Job]]) -> None:
        sequences = [sequence for sequence, _ in members]
        tokens, logprobs = choose(self._logits(hidden), sequences)
        for sequence, token, logprob in zip(sequences, tokens, logprobs, strict=True):
            sequence.accept(token, logprob, self.tokenizer)

    def _retire(self) -> None:
        """Free the slots of finished sequences; the last running one moves into each gap."""
        finished: list[_Job] = []
        for slot in reversed(range(len(self.running))):
            sequence, job = self.running[slot]
            if sequence.stop_reason is None:
                continue
            last_sequence, last_job = self.running[-1]
            if slot < len(self.running) - 1:
                length = len(last_job.request.prompt) + len(last_sequence.tokens)
                self.cache.move(len(self.running) - 1, slot, min(length, self.cache.capacity))
                self.running[slot] = (last_sequence, last_job)
            self.running.pop()
            if all(s.stop_reason for s in job.sequences) and job not in finished:
                finished.append(job)
        if not self.running:
            self.cache = self._empty_cache()
        for job in finished:
            self.admitted.remove(job)
            job.done(SampleResult(job.sequences, job.prompt_logprobs, job.topk_prompt))
