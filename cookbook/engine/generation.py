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
from cookbook.engine.linear import FixedAdapter, project
from cookbook.engine.lora import Adapter
from cookbook.engine.memory import give_back
from cookbook.engine.packing import pack
from cookbook.engine.prompt_scores import (
    PromptQuestions,
    PromptScorer,
    PromptScores,
    score_prompts,
)
from cookbook.engine.sampling import SamplingSettings, Sequence, choose, new_sequence

PREFILL_ROWS = 4096  # prompt tokens that join in one step
# A request that would take the running sequences above this many places of the cache waits. A place
# takes 23 kB with the smallest model, so these are 190 MB; beyond 64 sequences, each share of a
# step hardly falls. Each counts as its prompt and EXPECTED_TOKENS of what it may sample at most.
MAX_PLACES = 8_192
EXPECTED_TOKENS = 128


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """One validated request.

    Attributes:
        prompt: (P,) int64 token ids, at least one.
        num_samples: sequences to draw.
        questions: what to say about the prompt itself.
        topk_sample: also return the k most likely tokens at each sampled position.
    """

    prompt: np.ndarray
    num_samples: int
    settings: SamplingSettings
    questions: PromptQuestions = field(default_factory=PromptQuestions)
    topk_sample: int = 0


@dataclass(frozen=True)
class SampleResult:
    """The sampled sequences, and the answers about the prompt."""

    sequences: list[Sequence]
    scores: PromptScores


@dataclass(eq=False)
class _Job:
    request: SampleRequest
    done: Callable[[SampleResult | Exception], None]
    is_cancelled: Callable[[], bool]
    sequences: list[Sequence] = field(default_factory=list)
    scores: PromptScores = field(default_factory=PromptScores)


def _expected_length(request: SampleRequest) -> int:
    return len(request.prompt) + min(request.settings.max_tokens, EXPECTED_TOKENS)


class GenerationBatch:
    """All running sequences of one set of weights; slot i of the cache belongs to `running[i]`."""

    def __init__(
        self, weights: Weights, tokenizer: Tokenizer, adapter: Adapter | None = None
    ) -> None:
        self.weights = weights
        self.adapter = FixedAdapter(adapter) if adapter else None
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

    def add(
        self,
        request: SampleRequest,
        done: Callable[[SampleResult | Exception], None],
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Queue a request; `done` is called once: when its last sequence ended, or on failure.

        A request whose `is_cancelled` turns true is dropped; nobody waits for its `done`.
        """
        self.waiting.append(_Job(request, done, is_cancelled))

    def step(self) -> None:
        """Admit what waits, or add one token to every running sequence."""
        try:
            with torch.inference_mode():
                self._drop_cancelled()
                if joining := self._take_waiting():
                    self._prefill(joining)
                elif self.running:
                    self._decode()
                self._retire()
        except Exception as error:
            self._fail_all(error)
            raise

    def _drop_cancelled(self) -> None:
        self.waiting = deque(job for job in self.waiting if not job.is_cancelled())
        for sequence, job in self.running:
            if job.is_cancelled():
                sequence.stop_reason = "length"
        self._retire()

    def _take_waiting(self) -> list[_Job]:
        """Return as many waiting jobs as fit; at least one if nothing runs, whatever its size."""
        taken, rows, sequences = [], 0, len(self.running)
        length = max((_expected_length(job.request) for _, job in self.running), default=0)
        while self.waiting:
            request = self.waiting[0].request
            rows += len(request.prompt)
            sequences += request.num_samples
            length = max(length, _expected_length(request))
            if (taken and rows > PREFILL_ROWS) or (
                (taken or self.running) and sequences * length > MAX_PLACES
            ):
                break
            taken.append(self.waiting.popleft())
        self.admitted += taken
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
        """Answer what the requests ask about their own prompts."""
        asked = [(job, r) for job, r in zip(jobs, rows, strict=True) if job.request.questions.any]
        scorers = []
        for job, _ in asked:
            settings = job.request.settings
            generator = new_sequence(settings, -1).generator  # no sample has this number
            request = job.request
            scorer = PromptScorer(
                request.questions, request.prompt, settings.temperature, generator
            )
            job.scores = scorer.scores
            scorers.append(scorer)
        if asked:
            score_prompts(scorers, [hidden[r] for _, r in asked], self._logits)

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
        logits = self._logits(hidden)
        tokens, logprobs = choose(logits, sequences)
        for i, (sequence, job) in enumerate(members):
            if job.request.topk_sample:
                values, ids = logits[i].topk(job.request.topk_sample)
                norm = logits[i, tokens[i]] - logprobs[i]
                sequence.top.append((ids.cpu().numpy(), (values - norm).cpu().numpy()))
            sequence.accept(tokens[i], logprobs[i], self.tokenizer)

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
            give_back()
        for job in finished:
            self.admitted.remove(job)
            job.done(SampleResult(job.sequences, job.scores))
