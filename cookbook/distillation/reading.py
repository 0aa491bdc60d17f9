"""The same sampled tokens after another prompt: what a teacher reads that its student does not.

Student and teacher have one tokenizer, so the sampled tokens are the same numbers for both and only
the prompt before them differs. A row is therefore aligned from its end: whatever the length of the
prompts, the last tokens of both readings are one another's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from renderers import Renderer

from cookbook.errors import ConfigError, DataError
from cookbook.rl import Episode, Row
from cookbook.rows import Message


def with_context(messages: Sequence[Message], context: Sequence[Message]) -> list[Message]:
    """Return a conversation with `context` before it.

    A chat opens with one system message: the context's, if it has one, else the conversation's.

    Args:
        messages: a conversation, as the student reads it.
        context: messages that the teacher alone reads, such as a long instruction and examples.
    """
    own, rest = _without_system(messages)
    taught, examples = _without_system(context)
    return [*(taught or own), *examples, *rest]


def _without_system(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """Return the system message that a chat opens with, if it does, and the other messages."""
    count = int(bool(messages) and messages[0]["role"] == "system")
    return list(messages[:count]), list(messages[count:])


def first_sampled(row: Row) -> int:
    """Return the position of the row's first sampled token.

    Raises:
        DataError: there is none.
    """
    if not row.sampled.any():
        raise DataError("A row without a sampled token has nothing for a teacher to score.")
    return int(np.argmax(row.sampled))


def after_prompt(row: Row, prompt: Sequence[int]) -> Row:
    """Return the row with `prompt` before its first sampled token; the rest is left as it is.

    Args:
        row: T tokens, of which S are the prompt's.
        prompt: S' tokens to stand in for those.
    Returns:
        A row of S' + T - S tokens.
    """
    start = first_sampled(row)
    zeros = np.zeros(len(prompt))
    return Row(
        tokens=np.concatenate([np.asarray(prompt, dtype=row.tokens.dtype), row.tokens[start:]]),
        sampled=np.concatenate([zeros.astype(bool), row.sampled[start:]]),
        logprobs=np.concatenate([zeros, row.logprobs[start:]]),
        advantages=np.concatenate([zeros, row.advantages[start:]]),
    )


def aligned(values: np.ndarray, row: Row) -> np.ndarray:
    """Return a reading's values (T', ...) at the tokens of the row they belong to (T, ...).

    Values of the prompt become 0: student and teacher read different ones.
    """
    n = len(row.tokens) - first_sampled(row)
    prompt = np.zeros((len(row.tokens) - n, *values.shape[1:]), values.dtype)
    return np.concatenate([prompt, values[len(values) - n :]])


@dataclass(frozen=True)
class Reader:
    """Lays the student's rows out as the teacher reads them."""

    renderer: Renderer
    context: Sequence[Message] = ()
    """Messages before the conversation that only the teacher reads; see `with_context`."""

    def read(self, episode: Episode, rows: Sequence[Row]) -> list[Row]:
        """Return each of an episode's rows as the teacher reads it.

        Without a context these are the rows themselves.

        Raises:
            ConfigError: a row's prompt is not what this renderer writes for its messages (it had
                tools, or another renderer wrote it), so that a teacher's prompt can't be made.
        """
        return [self._read(episode, row) for row in rows] if self.context else list(rows)

    def _read(self, episode: Episode, row: Row) -> Row:
        prompt = row.tokens[: first_sampled(row)].tolist()
        before = _messages_before(episode, prompt)
        if self._render(before) != prompt:
            raise ConfigError(
                "A teacher with a context reads the conversation anew, but the student's prompt is "
                "not what this model's renderer writes for its messages. Was it given tools, or "
                "another renderer? Leave the teacher's context out, or the tools."
            )
        return after_prompt(row, self._render(with_context(before, self.context)))

    def _render(self, messages: Sequence[Message]) -> list[int]:
        return self.renderer.render_ids(list(messages), add_generation_prompt=True)  # pyright: ignore


def _messages_before(episode: Episode, prompt: list[int]) -> Sequence[Message]:
    """Return the messages that the turn with this prompt answered."""
    prompts = [list(turn.prompt) for turn in episode.turns]
    replies = [
        index
        for index, message in enumerate(episode.messages)
        if index >= episode.opening and message["role"] == "assistant"
    ]
    return episode.messages[: replies[prompts.index(prompt)]]
