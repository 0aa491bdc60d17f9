"""A comparison: one prompt, two answers, and which of them is preferred.

The order of the answers carries no meaning, but a judge may favour a place all the same. So a
comparison can be `swapped`, and a set of them shown in both orders with `symmetrised` (each teaches
that the place does not matter) or in a seeded random order with `shuffled_sides`.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from cookbook.errors import DataError
from cookbook.rows import Conversation, FieldError, check_conversation, check_text

Label = Literal["A", "B", "Tie"]
LABELS: tuple[Label, ...] = get_args(Label)
SWAPPED_LABEL: dict[Label, Label] = {"A": "B", "B": "A", "Tie": "Tie"}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two answers to one prompt and the verdict on them.

    Raises:
        FieldError: the prompt is no conversation or ends with the assistant's turn, an answer is
            no text or blank, or the label is not one of "A", "B", "Tie".
    """

    prompt: Conversation
    """Messages {"role", "content"} up to the turn that both answers reply to."""
    answer_a: str
    """The assistant's reply shown first."""
    answer_b: str
    """The assistant's reply shown second."""
    label: Label
    """The better answer: "A", "B", or "Tie" where neither is."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt", _checked_prompt(self.prompt))
        _check_answer("answer_a", self.answer_a)
        _check_answer("answer_b", self.answer_b)
        if self.label not in LABELS:
            raise FieldError("label", f"expected one of {', '.join(LABELS)}, got {self.label!r}.")

    @property
    def chosen(self) -> str:
        """The preferred answer.

        Raises:
            DataError: it is a tie.
        """
        return self._answer(self.label)

    @property
    def rejected(self) -> str:
        """The other answer.

        Raises:
            DataError: it is a tie.
        """
        return self._answer(SWAPPED_LABEL[self.label])

    def swapped(self) -> "Comparison":
        """Return the same verdict with the answers in the other order."""
        return Comparison(
            prompt=self.prompt,
            answer_a=self.answer_b,
            answer_b=self.answer_a,
            label=SWAPPED_LABEL[self.label],
        )

    def with_answer(self, answer: str) -> Conversation:
        """Return the prompt with `answer` as the assistant's next turn."""
        return [*self.prompt, {"role": "assistant", "content": answer}]

    def _answer(self, label: Label) -> str:
        if label == "Tie":
            raise DataError(
                "A tie has neither a chosen nor a rejected answer. Leave ties out first, "
                "with without_ties."
            )
        return self.answer_a if label == "A" else self.answer_b


def without_ties(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """Return the comparisons that have a winner, in their order."""
    return [comparison for comparison in comparisons if comparison.label != "Tie"]


def symmetrised(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """Return every comparison in both orders, next to each other: twice as many."""
    return [shown for comparison in comparisons for shown in (comparison, comparison.swapped())]


def shuffled_sides(comparisons: Iterable[Comparison], seed: int) -> list[Comparison]:
    """Return the comparisons, each swapped with probability 1/2, decided by `seed`.

    Data sets often list the chosen answer first; a judge would learn the place from them.
    """
    rng = random.Random(f"sides, seed {seed}")
    return [
        comparison.swapped() if rng.random() < 0.5 else comparison for comparison in comparisons
    ]


def _checked_prompt(messages: Conversation) -> Conversation:
    try:
        prompt = check_conversation(messages)
    except FieldError as error:
        raise FieldError("prompt", f"its {error}") from None
    if prompt[-1]["role"] == "assistant":
        raise FieldError(
            "prompt",
            "expected a last message that the two answers reply to, got the assistant's own. "
            "Move it to the answers.",
        )
    return prompt


def _check_answer(field: str, answer: str) -> None:
    check_text(answer, field)
    if not answer.strip():
        raise FieldError(field, f"expected an answer, got {answer!r}. Drop the row.")
