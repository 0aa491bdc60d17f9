"""Pack sequences of different lengths into one flat batch that computes shared prefixes once.

Owns: which token goes into which row of the packed batch, and which rows each row may attend to.

Linear layers see `N` packed rows without any padding. Sequences that begin alike (one prompt, many
samples; one system message, many conversations) form a tree: each *segment* is a run of tokens
computed once, its parent is the segment before it. A row attends to its own segment up to itself
and to all of its ancestors, so sharing is exact: a prefix never sees what follows it.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

MIN_SHARED_TOKENS = 4  # below this a shared run saves less than a segment costs
ROW_BUDGET = 384  # rows of one micro-batch: bounds the memory of activations; 512 is no faster


@dataclass(frozen=True)
class Segment:
    """A run of tokens computed once: `tokens` at positions `start`, `start + 1`, ..."""

    tokens: np.ndarray
    start: int
    parent: int | None


@dataclass(frozen=True)
class AttentionGroup:
    """Segments of similar size that attend in one padded batch (S segments, T queries, K keys)."""

    query_rows: torch.Tensor  # (S, T) int64, padded with 0
    key_rows: torch.Tensor  # (S, K) int64, padded with 0
    hidden: torch.Tensor  # (S, 1, T, K) bool, keys not to attend to (padded queries see key 0)
    real_queries: torch.Tensor  # (sum of segment lengths,) flat indices into S * T


@dataclass(frozen=True)
class PackedBatch:
    """`N` unique rows, and for each sequence the rows of its tokens."""

    tokens: torch.Tensor  # (N,) int64
    positions: torch.Tensor  # (N,) int64
    groups: list[AttentionGroup]
    rows: list[np.ndarray] = field(default_factory=list)  # per sequence: (length,) int64

    def to(self, device: torch.device) -> "PackedBatch":
        """Return the same batch with its tensors on `device`."""
        groups = [
            AttentionGroup(
                group.query_rows.to(device),
                group.key_rows.to(device),
                group.hidden.to(device),
                group.real_queries.to(device),
            )
            for group in self.groups
        ]
        return PackedBatch(self.tokens.to(device), self.positions.to(device), groups, self.rows)


def common_prefix_length(a: np.ndarray, b: np.ndarray) -> int:
    """Return how many leading tokens `a` and `b` share."""
    n = min(len(a), len(b))
    differs = np.flatnonzero(a[:n] != b[:n])
    return int(differs[0]) if len(differs) else n


def micro_batches(sequences: list[np.ndarray], budget: int = ROW_BUDGET) -> list[list[int]]:
    """Return index lists that cover all sequences, each of at most `budget` unique rows.

    Sequences are sorted, so those with a common prefix land in the same micro-batch; a single
    sequence longer than the budget gets a micro-batch of its own.
    """
    order = sorted(range(len(sequences)), key=lambda i: sequences[i].tolist())
    batches: list[list[int]] = []
    used = budget
    for previous, i in zip([None, *order], order, strict=False):
        length = len(sequences[i])
        shared = 0
        if previous is not None:
            shared = common_prefix_length(sequences[previous], sequences[i])
        if used + length - shared > budget:
            batches.append([])
            used, shared = 0, 0
        batches[-1].append(i)
        used += length - shared
    return batches


def pack(sequences: list[np.ndarray]) -> PackedBatch:
    """Return the packed batch of `sequences` (each a non-empty 1-D array of token ids)."""
    segments, paths = _build_segments(sequences)
    order, row_starts = _order_rows(segments)
    chains = [_ancestors(segments, i) for i in range(len(segments))]
    segment_rows = [
        np.arange(start, start + len(segment.tokens))
        for segment, start in zip(segments, row_starts, strict=True)
    ]
    groups = [_attention_group(members, chains, segment_rows) for members in order]
    in_row_order = [i for members in order for i in members]
    tokens = np.concatenate([segments[i].tokens for i in in_row_order])
    positions = np.concatenate(
        [np.arange(len(segments[i].tokens)) + segments[i].start for i in in_row_order]
    )
    rows = [np.concatenate([segment_rows[i] for i in path]) for path in paths]
    return PackedBatch(torch.from_numpy(tokens), torch.from_numpy(positions), groups, rows)


def _build_segments(sequences: list[np.ndarray]) -> tuple[list[Segment], list[list[int]]]:
    """Return the segments of the prefix tree and, per sequence, its path of segment numbers."""
    order = sorted(range(len(sequences)), key=lambda i: sequences[i].tolist())
    segments: list[Segment] = []
    paths: list[list[int]] = [[] for _ in sequences]
    # Each entry: sequences that agree up to `start` and beyond, not yet covered from `start` on.
    stack: list[tuple[list[int], int]] = [(order, 0)]
    while stack:
        members, start = stack.pop()
        first, last = sequences[members[0]], sequences[members[-1]]
        end = common_prefix_length(first, last)
        alone = len(members) == 1
        if alone or end == max(len(first), len(last)) or end - start >= MIN_SHARED_TOKENS:
            if end > start:
                parent = paths[members[0]][-1] if paths[members[0]] else None
                segments.append(Segment(first[start:end], start, parent))
                for i in members:
                    paths[i].append(len(segments) - 1)
            start = end
        if alone:
            continue
        stack.extend((part, start) for part in _split_by_token(sequences, members, end, start))
    return segments, paths


def _split_by_token(
    sequences: list[np.ndarray], members: list[int], at: int, start: int
) -> list[list[int]]:
    """Return `members` grouped by their token at position `at`; finished ones stand alone."""
    parts: dict[int, list[int]] = {}
    lone = []
    for i in members:
        if len(sequences[i]) > at:
            parts.setdefault(int(sequences[i][at]), []).append(i)
        elif len(sequences[i]) > start:
            lone.append([i])
    return lone + list(parts.values())


def _ancestors(segments: list[Segment], i: int) -> list[int]:
    """Return segment numbers from the root down to `i`, itself included."""
    chain: list[int] = []
    current: int | None = i
    while current is not None:
        chain.append(current)
        current = segments[current].parent
    return chain[::-1]


def _order_rows(segments: list[Segment]) -> tuple[list[list[int]], np.ndarray]:
    """Group segments of similar shape (little padding) and give each its first packed row."""
    buckets: dict[tuple[int, int], list[int]] = {}
    for i, segment in enumerate(segments):
        length = len(segment.tokens)
        key = (length.bit_length(), (segment.start + length).bit_length())
        buckets.setdefault(key, []).append(i)
    order = [buckets[key] for key in sorted(buckets)]
    starts = np.zeros(len(segments), dtype=np.int64)
    row = 0
    for i in (i for members in order for i in members):
        starts[i] = row
        row += len(segments[i].tokens)
    return order, starts


def _attention_group(
    members: list[int], chains: list[list[int]], segment_rows: list[np.ndarray]
) -> AttentionGroup:
    queries = [segment_rows[i] for i in members]
    keys = [np.concatenate([segment_rows[j] for j in chains[i]]) for i in members]
    S, T, K = len(members), max(map(len, queries)), max(map(len, keys))
    query_rows = np.zeros((S, T), dtype=np.int64)
    key_rows = np.zeros((S, K), dtype=np.int64)
    allowed = np.zeros((S, T, K), dtype=bool)
    allowed[:, :, 0] = True
    real = np.zeros((S, T), dtype=bool)
    for s, (query, key) in enumerate(zip(queries, keys, strict=True)):
        query_rows[s, : len(query)] = query
        key_rows[s, : len(key)] = key
        before = len(key) - len(query)
        allowed[s, : len(query), : len(key)] = np.tri(len(query), len(key), before, dtype=bool)
        real[s, : len(query)] = True
    return AttentionGroup(
        torch.from_numpy(query_rows),
        torch.from_numpy(key_rows),
        torch.from_numpy(~allowed)[:, None],
        torch.from_numpy(np.flatnonzero(real)),
    )
