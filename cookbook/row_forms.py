"""One row of a data set becomes the messages of one conversation: the forms that rows have."""

from collections.abc import Mapping, Sequence
from typing import Any

from cookbook.rows import Conversation, FieldError, Row, RowMapper, shown, text_field


def standard_messages(row: Row) -> Any:
    """Return the messages of a row in one of the common forms.

    These are: "messages"; "prompt" and "completion"; "instruction", "input" and "output" (Alpaca);
    a message tree with "prompt" and its "replies" (OpenAssistant).
    """
    if "messages" in row:
        return row["messages"]
    if isinstance(row.get("prompt"), Mapping):
        return best_thread(row)
    if "instruction" in row and "output" in row:
        return instruction_messages(row)
    if "prompt" in row and "completion" in row:
        return prompt_and_answer("prompt", "completion")(row)
    raise FieldError(
        "messages",
        f"it is missing, the row has {sorted(row)}. Rename the column, or pass "
        "to_messages=prompt_and_answer(prompt_field, answer_field).",
    )


def prompt_and_answer(prompt_field: str, answer_field: str) -> RowMapper:
    """Return a row mapper: one user turn and one assistant turn out of two text fields.

    Example:
        >>> prompt_and_answer("q", "a")({"q": "2 + 3?", "a": "5"})[1]
        {'role': 'assistant', 'content': '5'}
    """

    def to_messages(row: Row) -> Conversation:
        return [
            {"role": "user", "content": text_field(row, prompt_field)},
            {"role": "assistant", "content": text_field(row, answer_field)},
        ]

    return to_messages


def instruction_messages(row: Row) -> Conversation:
    """Return instruction and output of an Alpaca row; an "input" follows the instruction."""
    task = text_field(row, "instruction")
    given = text_field(row, "input") if row.get("input") else ""
    return prompt_and_answer("task", "output")({**row, "task": f"{task}\n{given}".strip()})


def best_thread(row: Row) -> Conversation:
    """Return one conversation of an OpenAssistant tree: at each turn the reply ranked best.

    One alone, because threads of a tree share their beginning: were they divided into training and
    test rows, the same questions would stand in both. It ends with the assistant's last reply.

    Raises:
        FieldError: the tree has no reply, or a message in it is not of that form.
    """
    names = {"prompter": "user", "assistant": "assistant"}
    thread: Conversation = []
    replies: Any = [row["prompt"]]
    while replies:
        best = min(replies, key=lambda reply: (reply.get("rank") is None, reply.get("rank") or 0))
        if best.get("role") not in names:
            raise FieldError(
                "role", f"expected prompter or assistant, got {shown(best.get('role'))}."
            )
        thread.append({"role": names[best["role"]], "content": text_field(best, "text")})
        replies = best.get("replies", [])
    if thread[-1]["role"] == "user":
        thread.pop()
    if not thread:
        raise FieldError("replies", "expected at least one reply to the prompt, got none.")
    return thread


def reasoning_messages(row: Row) -> Conversation:
    """Return question and answer of an s1K row, the reasoning in <think> tags before the answer.

    Reads both versions: s1K ("thinking_trajectories", "attempt") and s1K-1.1 (DeepSeek's columns).
    The tags are plain text: renderers with a reasoning slot fill it from them, others keep them.
    """
    if "deepseek_thinking_trajectory" in row:
        thinking, answer = (
            text_field(row, "deepseek_thinking_trajectory"),
            text_field(row, "deepseek_attempt"),
        )
    else:
        trajectories = row.get("thinking_trajectories")
        if not isinstance(trajectories, Sequence) or not trajectories:
            raise FieldError(
                "thinking_trajectories", f"expected a list of texts, got {shown(trajectories)}."
            )
        thinking, answer = trajectories[0], text_field(row, "attempt")
    content = f"<think>\n{thinking.strip()}\n</think>\n\n{answer.strip()}"
    question = {"role": "user", "content": text_field(row, "question")}
    return [question, {"role": "assistant", "content": content}]
