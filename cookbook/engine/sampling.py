"""Choosing the next token, and knowing when to stop.

Owns: temperature, top-k, top-p, seeds, stop rules. Reported log-probabilities are those of the
model itself at temperature 1, whatever filter was applied, as on the hosted service.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from tokenizers import Tokenizer

# Below this a temperature is 0: only ties could differ, and dividing by less may overflow.
MIN_TEMPERATURE = 1e-5


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """Validated sampling parameters of one request.

    Attributes:
        max_tokens: new tokens at most.
        temperature: 0 picks the most likely token.
        top_k: keep the k most likely tokens; -1 keeps all.
        top_p: keep the smallest set of tokens whose probability reaches p (nucleus sampling,
            Holtzman et al. 2020, arXiv:1904.09751).
        seed: makes the samples of this request reproducible; None draws a random one.
        stop_ids: token ids that end a sequence (the stop token is kept).
        stop_texts: strings that end a sequence (the token completing the string is kept whole).
    """

    max_tokens: int
    temperature: float = 1.0
    top_k: int = -1
    top_p: float = 1.0
    seed: int | None = None
    stop_ids: frozenset[int] = frozenset()
    stop_texts: tuple[str, ...] = ()


@dataclass(eq=False)
class Sequence:
    """One sequence being sampled: its settings, its random stream and what it has so far."""

    settings: SamplingSettings
    generator: np.random.Generator
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    # The most likely ids and their log-probabilities at each position, where asked for.
    top: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    stop_reason: str | None = None  # "stop" or "length" once finished

    def accept(self, token: int, logprob: float, tokenizer: Tokenizer) -> None:
        """Append a sampled token and decide whether the sequence ends with it."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if token in self.settings.stop_ids or self._ends_with_stop_text(tokenizer):
            self.stop_reason = "stop"
        elif len(self.tokens) >= self.settings.max_tokens:
            self.stop_reason = "length"

    def _ends_with_stop_text(self, tokenizer: Tokenizer) -> bool:
        if not self.settings.stop_texts:
            return False
        # A token holds at least one byte, so this many tokens cover the longest stop string;
        # four more keep a character that straddles the cut from hiding a match.
        longest = max(len(text.encode()) for text in self.settings.stop_texts)
        tail = tokenizer.decode(self.tokens[-(longest + 4) :], skip_special_tokens=False)
        return any(text in tail for text in self.settings.stop_texts)


def new_sequence(settings: SamplingSettings, index: int) -> Sequence:
    """Return sample number `index` of a request; with a seed, each index has its own stream."""
    entropy = None if settings.seed is None else [settings.seed & (2**64 - 1), index % 2**32]
    return Sequence(settings, np.random.default_rng(entropy))


def choose(logits: torch.Tensor, sequences: list[Sequence]) -> tuple[list[int], list[float]]:
    """Return the next token of each sequence and its log-probability.

    Args:
        logits: (B, V) float32, in any memory layout.
        sequences: the B sequences the rows belong to.
    """
    temperatures = [sequence.settings.temperature for sequence in sequences]
    warm = [i for i, temperature in enumerate(temperatures) if temperature > MIN_TEMPERATURE]
    tops = logits.amax(-1, keepdim=True)
    # Every pass over (B, V) counts here, so the shifted exponentials serve the norm and the draw.
    masses = (logits - tops).exp_()
    log_norms = masses.sum(-1).log() + tops[:, 0]
    # The search for the largest costs as much as all the rest, so it is for greedy rows only.
    tokens = torch.zeros_like(tops, dtype=torch.int64)[:, 0]
    if len(warm) < len(sequences):
        tokens = logits.argmax(-1)
    if warm:
        tokens[warm] = _draw(
            _filtered(logits, masses, sequences, warm), [sequences[i] for i in warm]
        )
    logprobs = logits.gather(-1, tokens[:, None])[:, 0] - log_norms
    return tokens.tolist(), logprobs.tolist()


def _filtered(
    logits: torch.Tensor, masses: torch.Tensor, sequences: list[Sequence], warm: list[int]
) -> torch.Tensor:
    """Return unnormalised probabilities (W, V) after temperature, top-k and top-p.

    `masses` (B, V) holds them at temperature 1, each row's largest being 1.
    """
    chosen = [sequences[i].settings for i in warm]
    rows = masses if len(warm) == len(sequences) else masses[warm]
    if any(settings.temperature != 1 for settings in chosen):
        temperatures = rows.new_tensor([settings.temperature for settings in chosen])[:, None]
        scaled = logits[warm] / temperatures
        rows = (scaled - scaled.amax(-1, keepdim=True)).exp_()
    for i, settings in enumerate(chosen):
        if settings.top_k > 0 or settings.top_p < 1:
            rows[i] = _truncate(rows[i], settings)
    return rows


def _truncate(probabilities: torch.Tensor, settings: SamplingSettings) -> torch.Tensor:
    """Zero everything outside top-k, then outside the nucleus (V,)."""
    values, order = probabilities.sort(descending=True)
    if settings.top_k > 0:
        values[settings.top_k :] = 0
    if settings.top_p < 1:
        mass_before = values.cumsum(-1) - values
        values[mass_before >= settings.top_p * values.sum()] = 0
    return torch.zeros_like(probabilities).scatter(0, order, values)


def _draw(masses: torch.Tensor, sequences: list[Sequence]) -> torch.Tensor:
    """Invert each row's cumulative distribution at one uniform number.

    Args:
        masses: (B, V) probabilities up to a factor per row.
        sequences: whose random streams to use.

    Two levels (blocks, then tokens of the chosen block) keep the sums short, hence exact and
    cheap: one cumulative sum over the whole vocabulary in float64 costs ten times as much.
    """
    B, V = masses.shape
    precise = torch.float32 if masses.device.type == "mps" else torch.float64  # MPS has no more
    width = next(w for w in range(int(V**0.5), 0, -1) if V % w == 0)
    blocks = masses.unflatten(-1, (-1, width))  # (B, V / width, width)
    block_ends = blocks.sum(-1).cumsum(-1, dtype=precise)
    uniform = torch.tensor(
        [sequence.generator.random() for sequence in sequences], dtype=precise
    ).to(masses.device)
    point = uniform * block_ends[:, -1]
    block = torch.searchsorted(block_ends, point[:, None], right=True)[:, 0]
    block = block.clamp(max=block_ends.shape[1] - 1)
    rows = torch.arange(B, device=masses.device)
    inside = blocks[rows, block]  # (B, width)
    ends = inside.cumsum(-1, dtype=precise)
    before = block_ends[rows, block] - inside.sum(-1)
    # The clamp undoes a rounding below 0, which would pick the block's first token even at 0.
    left = (point - before).clamp(min=0)
    offset = torch.searchsorted(ends, left[:, None], right=True)[:, 0]
    # Rounding may point just past the last token with any probability: step back to it.
    last = width - 1 - (inside > 0).flip(-1).int().argmax(-1)
    return block * width + torch.minimum(offset, last)
