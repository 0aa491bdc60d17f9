"""A generative judge: a language model reads two answers and says which one is better, A or B.

No new head and no new loss. The answers are written into a prompt, the label is one token, and the
verdict is read off that token's log-probabilities. Training is supervised training on that token:
with z = log p(A) - log p(B) its loss is -log sigmoid(z) where A is better, the Bradley-Terry loss
of a reward model, as far as no probability goes elsewhere. Shapes: E comparisons, T tokens.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tinker
from renderers import Renderer

from cookbook.errors import ConfigError, DataError
from cookbook.preferences.comparison import LABELS, Comparison, Label, symmetrised
from cookbook.preferences.datums import fit_prompt
from cookbook.preferences.verdicts import Verdicts
from cookbook.rl.background import Background
from cookbook.rl.shared_prompts import answer
from cookbook.rows import Conversation
from cookbook.supervised import datum_from_tokens

QUESTION = "Which answer is better, A or B?"
Shown = tuple[Conversation, str, str]
"""A prompt, the answer shown first, the answer shown second."""


def judge_messages(prompt: Conversation, first: str, second: str) -> Conversation:
    """Return what the judge reads: the question, the prompt, both answers.

    A prompt of one turn stands there as it is; of several, each line tells who speaks.
    """
    asked = (
        prompt[0]["content"]
        if len(prompt) == 1
        else "\n".join(f"{message['role']}: {message['content']}" for message in prompt)
    )
    shown = f"{asked}\n\nA: {first}\n\nB: {second}"
    return [{"role": "system", "content": QUESTION}, {"role": "user", "content": shown}]


def judge_tokens(
    renderer: Renderer, prompt: Conversation, first: str, second: str, max_length: int | None = None
) -> tuple[list[int], dict[Label, int]]:
    """Return the tokens up to the verdict (T,), and the token of each label that may follow.

    Args:
        renderer: from `cookbook.rendering.get_renderer`.
        prompt: what both answers reply to.
        first: the answer shown as A.
        second: the answer shown as B.
        max_length: longest T with the label; the oldest turns of a longer prompt are left out, see
            `fit_prompt`. Neither an answer nor the label is ever cut.
    Raises:
        DataError: too long even with the last turn of the prompt alone.
        ConfigError: the renderer gives two labels the same first token.
    """

    def length_of(kept: Conversation) -> int:
        messages: Any = judge_messages(kept, first, second)
        return len(renderer.render_ids(messages, add_generation_prompt=True)) + 1

    messages: list[Any] = judge_messages(fit_prompt(prompt, length_of, max_length), first, second)
    full: dict[Label, list[int]] = {
        label: renderer.render_ids([*messages, {"role": "assistant", "content": label}])
        for label in LABELS
    }
    # What a verdict is decided by: where the conversations that end with A and with B part.
    columns = zip(full["A"], full["B"], strict=False)
    at = next(i for i, (a, b) in enumerate(columns) if a != b)
    labels: dict[Label, int] = {label: tokens[at] for label, tokens in full.items()}
    if len(set(labels.values())) < len(LABELS) or full["Tie"][:at] != full["A"][:at]:
        raise ConfigError(
            f"The labels {', '.join(LABELS)} do not begin with different tokens in this model's "
            f"layout ({labels}), so a verdict cannot be read off one token. Use another model."
        )
    return full["A"][:at], labels


def judge_datum(
    renderer: Renderer, comparison: Comparison, max_length: int | None = None
) -> tinker.Datum:
    """Return the training example of a comparison: its label's first token alone has weight, 1.

    Raises:
        DataError: too long, see `judge_tokens`.
    """
    tokens, labels = judge_tokens(
        renderer, comparison.prompt, comparison.answer_a, comparison.answer_b, max_length
    )
    return datum_from_tokens([*tokens, labels[comparison.label]], [0.0] * len(tokens) + [1.0])


def judge_datums(renderer: Renderer, comparisons: Sequence[Comparison]) -> list[tinker.Datum]:
    """Return the training examples of comparisons (E), each in both orders (2E), of any length.

    Both orders of a comparison belong into one batch: whatever a place is worth cancels in its
    gradient, and what is left tells one answer from the other.
    """
    return [judge_datum(renderer, shown) for shown in symmetrised(comparisons)]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A sampling client that compares answers."""

    sampler: Any
    """Weights trained to judge."""
    renderer: Renderer
    """The model's; see `cookbook.rendering.get_renderer`."""
    max_length: int | None = None
    """Longest comparison in tokens, see `judge_tokens`."""

    async def probabilities(self, shown: Sequence[Shown]) -> np.ndarray:
        """Return how likely the first of two answers is the better one (E,), in this order alone.

        A token is sampled after each question, all at once. Whichever label it is, its
        log-probability l tells both: ``P = exp(l)`` for A, ``1 - exp(l)`` for B. That counts what
        probability goes to neither, hardly any once trained, to the label that was not sampled. For
        "Tie", and for a token that is no label, P is 0.5.

        Raises:
            DataError: a comparison is too long.
        """
        questions = [judge_tokens(self.renderer, *each, self.max_length) for each in shown]
        # At temperature 1, because servers differ in what they report at 0.
        params = tinker.SamplingParams(max_tokens=1, temperature=1.0, seed=0)
        asked = [
            answer(self.sampler.sample(tinker.ModelInput.from_ints(tokens), 1, params))
            for tokens, _ in questions
        ]
        found = []
        for (_, labels), response in zip(questions, await asyncio.gather(*asked), strict=True):
            token, logprob = response.sequences[0].tokens[0], response.sequences[0].logprobs[0]
            said = float(np.exp(logprob))
            found.append({labels["A"]: said, labels["B"]: 1 - said}.get(token, 0.5))
        return np.array(found)

    async def both_orders(self, shown: Sequence[Shown]) -> np.ndarray:
        """Return what `probabilities` says of each pair as shown and swapped (E, 2)."""
        orders = [
            order for asked, a, b in shown for order in ((asked, a, b), (asked, b, a))
        ]  # both orders of a pair next to each other
        return (await self.probabilities(orders)).reshape(-1, 2)

    async def prefer(self, prompt: Conversation, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return each pair's margin (M): P(first is better) - P(second is better), from -1 to 1.

        The mean over both orders, so that a swapped pair has the opposite margin exactly. A blank
        answer is none: it loses to any other without the judge being asked, and two are a tie. This
        is a `cookbook.preferences.Preference`.
        """
        margins = [float(bool(a.strip())) - float(bool(b.strip())) for a, b in pairs]
        open_ = [i for i, (a, b) in enumerate(pairs) if a.strip() and b.strip() and a != b]
        both = await self.both_orders([(prompt, *pairs[i]) for i in open_])
        for i, (given, swapped) in zip(open_, both.tolist(), strict=True):
            margins[i] = given - swapped
        return margins

    def verdicts(self, comparisons: Sequence[Comparison]) -> Verdicts:
        """Return what the judge makes of labelled comparisons (E), each in both orders.

        Raises:
            DataError: no comparisons, or one that is too long.
        """
        if not comparisons:
            raise DataError("Nothing to judge: got no comparisons. Hold out one or more.")
        shown = [(c.prompt, c.answer_a, c.answer_b) for c in comparisons]
        with Background() as background:
            both = background.submit(self.both_orders(shown)).result()
        return Verdicts(both=both, labels=[comparison.label for comparison in comparisons])
