"""One row of a data set becomes one comparison; the forms in which such rows are published.

A bad row is a `FieldError`; None stands for a row that the set's own rule leaves out.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from cookbook.preferences.comparison import Comparison, Label
from cookbook.rows import Conversation, FieldError, Row, check_conversation, text_field

ComparisonMapper = Callable[[Row], Comparison | None]

HH_TURN = re.compile(r"\n\n(Human|Assistant):")
HH_ROLES = {"Human": "user", "Assistant": "assistant"}
SHAREGPT_ROLES = {"system": "system", "human": "user", "user": "user"}
SHAREGPT_ROLES |= {"gpt": "assistant", "assistant": "assistant"}


def standard_comparison(row: Row) -> Comparison:
    """Return the comparison of a row in one of the usual forms.

    - "prompt" (text or messages), "answer_a", "answer_b", "label" (A, B or Tie);
    - "prompt", "chosen", "rejected", the last two as text, one message, or messages;
    - "chosen" and "rejected" as whole conversations that differ in the last message;
    - "conversations", "chosen", "rejected" with {"from", "value"} turns (ShareGPT).

    Raises:
        FieldError: the row has none of these forms, or a field of it is wrong.
    """
    if "label" in row and "answer_a" in row:
        return Comparison(
            prompt=_messages(row, "prompt"),
            answer_a=row["answer_a"],
            answer_b=text_field(row, "answer_b"),
            label=row["label"],
        )
    if "chosen" not in row or "rejected" not in row:
        raise FieldError(
            "chosen",
            f"it or 'rejected' is missing, the row has {sorted(row)}. Rename the columns, or pass "
            "to_comparison=labelled_answers(...) or a function of your own.",
        )
    if "conversations" in row:
        prompt = [_from_sharegpt(turn) for turn in row["conversations"]]
        answers = [_from_sharegpt(row[field])["content"] for field in ("chosen", "rejected")]
    elif "prompt" in row:
        prompt = _messages(row, "prompt")
        answers = [_last_content(row, field) for field in ("chosen", "rejected")]
    else:
        return _shared_prompt(_messages(row, "chosen"), _messages(row, "rejected"))
    return Comparison(prompt=prompt, answer_a=answers[0], answer_b=answers[1], label="A")


def labelled_answers(
    prompt_field: str,
    answer_a_field: str,
    answer_b_field: str,
    label_field: str,
    labels: Mapping[Any, Label],
) -> ComparisonMapper:
    """Return a row mapper for two answers and a verdict in fields of any name.

    Args:
        prompt_field: text, one user turn, or a list of messages.
        answer_a_field: text.
        answer_b_field: text.
        label_field: the verdict, one of the keys of `labels`.
        labels: what its values mean, such as {1: "A", 2: "B", 0: "Tie"}.
    """

    def to_comparison(row: Row) -> Comparison:
        verdict = row.get(label_field)
        if verdict not in labels:
            known = ", ".join(map(repr, labels))
            raise FieldError(label_field, f"expected one of {known}, got {verdict!r}.")
        return Comparison(
            prompt=_messages(row, prompt_field),
            answer_a=text_field(row, answer_a_field),
            answer_b=text_field(row, answer_b_field),
            label=labels[verdict],
        )

    return to_comparison


def hh_comparison(row: Row) -> Comparison | None:
    """Return the comparison of an Anthropic/hh-rlhf row, A the chosen answer.

    None for the few rows whose two texts differ in more than the last message.
    """
    chosen, rejected = (_hh_messages(text_field(row, f)) for f in ("chosen", "rejected"))
    try:
        return _shared_prompt(chosen, rejected)
    except FieldError:
        return None


def helpsteer3_comparison(row: Row) -> Comparison:
    """Return the comparison of an nvidia/HelpSteer3 "preference" row.

    Its "overall_preference" goes from -3, the first answer is much better, to 3; 0 is a tie.
    """
    score = row.get("overall_preference")
    if not isinstance(score, int | float):
        raise FieldError("overall_preference", f"expected a number, got {score!r}.")
    return Comparison(
        prompt=_messages(row, "context"),
        answer_a=text_field(row, "response1"),
        answer_b=text_field(row, "response2"),
        label="Tie" if score == 0 else "A" if score < 0 else "B",
    )


def ultrafeedback_comparison(row: Row) -> Comparison:
    """Return the comparison of an argilla/ultrafeedback-binarized-preferences row."""
    return Comparison(
        prompt=_messages(row, "instruction"),
        answer_a=text_field(row, "chosen_response"),
        answer_b=text_field(row, "rejected_response"),
        label="A",
    )


def _messages(row: Row, field: str) -> Conversation:
    """Return the messages in a field; text is one user turn."""
    value = row.get(field)
    if isinstance(value, str) or field not in row:
        return [{"role": "user", "content": text_field(row, field)}]
    try:
        return check_conversation(value)
    except FieldError as error:
        raise FieldError(field, f"its {error}") from None


def _last_content(row: Row, field: str) -> str:
    """Return the answer in a field: text, a message, or messages that end with it."""
    value = row[field]
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, str):
        return text_field(row, field)
    return _messages({field: value}, field)[-1]["content"]


def _shared_prompt(chosen: Conversation, rejected: Conversation) -> Comparison:
    """Return the comparison of two whole conversations, A the chosen answer."""
    roles = {chosen[-1]["role"], rejected[-1]["role"]} if chosen and rejected else set()
    if chosen[:-1] != rejected[:-1] or roles != {"assistant"}:
        raise FieldError(
            "rejected",
            "expected the messages of 'chosen' with another last message, the assistant's. "
            "Drop the row.",
        )
    return Comparison(
        prompt=chosen[:-1],
        answer_a=chosen[-1]["content"],
        answer_b=rejected[-1]["content"],
        label="A",
    )


def _hh_messages(text: str) -> Conversation:
    """Return the turns of a text "\\n\\nHuman: ...\\n\\nAssistant: ..."."""
    parts = HH_TURN.split(text)[1:]
    return [
        {"role": HH_ROLES[who], "content": said.strip()}
        for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def _from_sharegpt(turn: Any) -> dict[str, Any]:
    role = SHAREGPT_ROLES.get(str(turn.get("from"))) if isinstance(turn, Mapping) else None
    if role is None:
        known = ", ".join(SHAREGPT_ROLES)
        raise FieldError("conversations", f"expected turns from one of {known}, got {turn!r:.80}.")
    return {"role": role, "content": text_field(turn, "value")}
