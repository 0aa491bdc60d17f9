"""Packing loses nothing and shows no row what it must not see, whatever the sequences."""

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cookbook.engine.packing import (
    MIN_SHARED_TOKENS,
    PackedBatch,
    common_prefix_length,
    micro_batches,
    pack,
)

# Few different tokens, so that sequences share prefixes of all lengths; duplicates are common.
tokens = st.integers(0, 2)
plain = st.lists(st.lists(tokens, min_size=1, max_size=12), min_size=1, max_size=8)
forked = st.builds(
    lambda stem, tails: [stem[: 1 + i % len(stem)] + tail for i, tail in enumerate(tails)],
    st.lists(tokens, min_size=1, max_size=20),
    st.lists(st.lists(tokens, max_size=6), min_size=1, max_size=10),
)
batches = st.one_of(plain, forked, plain.map(lambda rows: rows * 2))


def arrays(rows: Sequence[Sequence[int]]) -> list[np.ndarray]:
    return [np.asarray(row, np.int64) for row in rows]


def seen_by_row(batch: PackedBatch) -> list[list[int]]:
    """For each packed row, the rows that it attends to."""
    seen: list[list[int]] = []
    for group in batch.groups:
        S, _, T, _ = group.hidden.shape
        allowed, keys = ~group.hidden.view(S * T, -1), group.key_rows
        for flat in group.real_queries.tolist():
            seen.append(keys[flat // T][allowed[flat]].tolist())
            assert group.query_rows.view(-1)[flat] == len(seen) - 1  # outputs come in row order
    return seen


@given(batches)
def test_every_sequence_is_recovered_from_its_rows(rows):
    sequences = arrays(rows)
    batch = pack(sequences)
    assert len(batch.rows) == len(sequences)
    for sequence, where in zip(sequences, batch.rows, strict=True):
        np.testing.assert_array_equal(batch.tokens.numpy()[where], sequence)
        np.testing.assert_array_equal(batch.positions.numpy()[where], np.arange(len(sequence)))


@given(batches)
def test_every_row_attends_to_exactly_its_own_prefix(rows):
    batch = pack(arrays(rows))
    seen = seen_by_row(batch)
    assert len(seen) == len(batch.tokens)
    for where in batch.rows:
        for position, row in enumerate(where.tolist()):
            assert seen[row] == where[: position + 1].tolist()


@given(batches)
def test_padded_queries_see_something_so_that_no_softmax_is_undefined(rows):
    for group in pack(arrays(rows)).groups:
        assert bool((~group.hidden).any(-1).all())


@given(batches)
def test_no_row_is_computed_in_vain(rows):
    batch = pack(arrays(rows))
    used = {row for where in batch.rows for row in where.tolist()}
    assert used == set(range(len(batch.tokens)))


def test_a_shared_prompt_is_computed_once():
    prompt = list(range(10, 10 + MIN_SHARED_TOKENS))
    batch = pack(arrays([[*prompt, 1, 1], [*prompt, 2], prompt, [*prompt, 2]]))
    assert len(batch.tokens) == len(prompt) + 3


@given(batches, st.integers(1, 30))
def test_micro_batches_cover_all_sequences_within_the_budget(rows, budget):
    sequences = arrays(rows)
    parts = micro_batches(sequences, budget)
    assert sorted(i for part in parts for i in part) == list(range(len(rows)))
    for part in parts:
        prefixes = {tuple(rows[i][:n]) for i in part for n in range(1, len(rows[i]) + 1)}
        assert len(prefixes) <= budget or len({tuple(rows[i]) for i in part}) == 1


@given(st.lists(tokens), st.lists(tokens))
def test_common_prefix(a, b):
    n = common_prefix_length(*arrays([a, b]))
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]


@settings(max_examples=20)
@given(batches)
def test_moving_a_batch_to_a_device_changes_nothing(rows):
    batch = pack(arrays(rows))
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.tokens, batch.tokens)
    assert seen_by_row(moved) == seen_by_row(batch)
