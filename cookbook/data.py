"""Conversations: loading, checking, splitting, and batches in a seeded order.

A conversation is a list of messages {"role", "content"}. It comes from a bundled set, a local file
(.jsonl, .json, .parquet), or a data set on the hub; every message is checked on the way in, and a
bad one is an error that names file, line and field. Shapes: lists are ragged, indices count from 0.
"""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cookbook.errors import ConfigError, DataError
from cookbook.row_forms import reasoning_messages, standard_messages
from cookbook.rows import (
    Conversation,
    FieldError,
    Row,
    RowMapper,
    check_conversation,
    kind_of,
    source_rows,
)

BUNDLED = "pocket_tutor"
PLAIN_FACTS = "plain_facts"
"""Short questions whose plain answers end with a fact, to see what training on others forgets."""


@dataclass(frozen=True, kw_only=True)
class HubSet:
    """How one data set on the hub becomes conversations."""

    to_messages: RowMapper = standard_messages
    """Row to messages."""
    has_test: bool = False
    """Whether there is a split "test"."""
    n_carved: int = 0
    """If positive: "test" is not the hub's but the first rows of "train", shuffled with seed 0."""


def load_conversations(
    source: str, split: str = "train", *, to_messages: RowMapper | None = None
) -> list[Conversation]:
    """Return the checked conversations of a data set.

    Args:
        source: "pocket_tutor" or "plain_facts" (bundled), a path with one of
            `cookbook.rows.FILE_ENDINGS`, or a hub id.
        split: a split of the hub's; bundled and local sets have "train" alone (divide that with
            `split_conversations`).
        to_messages: row to messages, for rows of another form, e.g. `prompt_and_answer("question",
            "answer")`. By default the form is one that `standard_messages` knows, or is that of
            the sets in `HUB_SETS`.
    Raises:
        DataError: the file is missing, a row is bad (file, line, field), the hub can't be reached.
        ConfigError: the source is none of the three, or has no such split.
    """
    bundled = PLAIN_FACTS if source == PLAIN_FACTS else BUNDLED
    kind, hub_set = kind_of(source, bundled), HUB_SETS.get(source, HubSet())
    if kind != "hub" and split != "train":
        raise ConfigError(
            f"{source!r} has no split {split!r}: bundled and local sets have 'train' alone. "
            "Load that and divide it with split_conversations."
        )
    rows = source_rows(source, split, bundled, n_carved=hub_set.n_carved)
    return _conversations(rows, to_messages or hub_set.to_messages)


HUB_SETS: dict[str, HubSet] = {
    "HuggingFaceH4/no_robots": HubSet(has_test=True),
    # The public tinker-cookbook's rule, so that figures can be compared.
    "allenai/tulu-3-sft-mixture": HubSet(has_test=True, n_carved=1024),
    "simplescaling/s1K": HubSet(to_messages=reasoning_messages),
    "simplescaling/s1K-1.1": HubSet(to_messages=reasoning_messages),
}


def load_train_and_test(
    source: str, n_test: int, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """Return (train, test) of a data set, with at most `n_test` test conversations.

    Sets with a test split of their own keep it (its first `n_test` rows); of the others `n_test`
    rows are held out with `seed`.
    """
    hub_set = HUB_SETS.get(source, HubSet())
    train = load_conversations(source)
    if hub_set.has_test:
        return train, load_conversations(source, "test")[:n_test] if n_test else []
    return split_conversations(train, n_test, seed)


def split_conversations(
    rows: Sequence[Conversation], n_test: int, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """Return (train, test): `n_test` rows drawn with `seed`, and the others in their order.

    Exact copies of a test conversation are left out of the training part as well, so that nothing
    is tested that was trained on.

    Raises:
        ConfigError: `n_test` is negative or leaves nothing to train on.
    """
    if not 0 <= n_test < len(rows):
        raise ConfigError(
            f"n_test={n_test}, but there are {len(rows)} conversations. "
            f"Allowed: 0 to {len(rows) - 1}, so that one is left to train on."
        )
    chosen = set(random.Random(f"test rows, seed {seed}").sample(range(len(rows)), n_test))
    test = [rows[i] for i in sorted(chosen)]
    held_out = {json.dumps(row, sort_keys=True) for row in test}
    left = [row for i, row in enumerate(rows) if i not in chosen]
    return [row for row in left if json.dumps(row, sort_keys=True) not in held_out], test


@dataclass(frozen=True)
class Batches:
    """Row indices of every training step, a pure function of the step: `batches[step]`.

    Each epoch visits every row once in its own seeded order; the last batch of an epoch holds the
    rows that are left and may be smaller (dropping them would never train on some rows of a small
    set). Nothing is remembered between calls, so a resumed run goes on with the same rows.

    Raises:
        ConfigError: no rows, or a batch size below 1.
    """

    n_rows: int
    """Rows in the data set, at least 1."""
    batch_size: int
    """Rows per step, at least 1."""
    seed: int
    """Orders of different seeds are unrelated."""

    def __post_init__(self) -> None:
        if self.n_rows < 1 or self.batch_size < 1:
            raise ConfigError(
                f"n_rows={self.n_rows} and batch_size={self.batch_size}: both must be at least 1."
            )

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return -(-self.n_rows // self.batch_size)

    def n_steps(self, num_epochs: int, max_steps: int = 0) -> int:
        """Return the number of batches in so many epochs, at most `max_steps` unless that is 0."""
        in_epochs = num_epochs * self.steps_per_epoch
        return min(in_epochs, max_steps or in_epochs)

    def locate(self, step: int) -> tuple[int, int]:
        """Return (epoch, index of the batch within it) of a step, all counted from 0."""
        return divmod(step, self.steps_per_epoch)

    def __getitem__(self, step: int) -> list[int]:
        epoch, index = self.locate(step)
        order = _epoch_order(self.n_rows, self.seed, epoch)
        return list(order[index * self.batch_size : (index + 1) * self.batch_size])


@lru_cache(maxsize=4)
def _epoch_order(n_rows: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(n_rows))
    random.Random(f"seed {seed}, epoch {epoch}").shuffle(order)
    return tuple(order)


def _conversations(rows: Iterable[tuple[str, Row]], to_messages: RowMapper) -> list[Conversation]:
    conversations = []
    for where, row in rows:
        try:
            conversations.append(check_conversation(to_messages(row)))
        except FieldError as error:
            raise DataError(f"{where}, {error}") from None
    if not conversations:
        raise DataError("The data set holds no conversations. Give at least one row.")
    return conversations
