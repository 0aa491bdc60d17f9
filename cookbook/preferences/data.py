"""Comparisons: loading, checking, splitting. Batches of them come from `cookbook.data.Batches`.

The bundled set "tutor_replies" was written for this project: short replies to learners' questions.
Its rule: **of two replies the better one answers and then ends by asking one question back**, since
a learner who is asked thinks along, and a tutor who asks finds out where the learner stands. The
other reply ends with a remark, and some of them ask a question elsewhere. Both are correct and
about equally long; `cookbook.preferences.asks_back` measures the rule in any text.
"""

import json
import random
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cookbook.errors import ConfigError, DataError
from cookbook.preferences.comparison import Comparison
from cookbook.preferences.rows import (
    ComparisonMapper,
    helpsteer3_comparison,
    hh_comparison,
    standard_comparison,
    ultrafeedback_comparison,
)
from cookbook.rows import FieldError, Row, kind_of, source_rows

BUNDLED = "tutor_replies"


@dataclass(frozen=True, kw_only=True)
class HubSet:
    """How one data set on the hub becomes comparisons."""

    to_comparison: ComparisonMapper = standard_comparison
    """Row to comparison."""
    config: str | None = None
    """Which of its configurations, where it has several."""
    train: str = "train"
    """Its split to train on."""
    test: str = ""
    """Its split to test on; empty: it has none."""

    def split(self, name: str) -> str:
        """Return what the hub calls the split "train" or "test"."""
        return {"train": self.train, "test": self.test or "test"}.get(name, name)


HUB_SETS: dict[str, HubSet] = {
    "Anthropic/hh-rlhf": HubSet(to_comparison=hh_comparison, test="test"),
    "argilla/ultrafeedback-binarized-preferences": HubSet(to_comparison=ultrafeedback_comparison),
    "HuggingFaceH4/ultrafeedback_binarized": HubSet(train="train_prefs", test="test_prefs"),
    "nvidia/HelpSteer3": HubSet(
        to_comparison=helpsteer3_comparison, config="preference", test="validation"
    ),
}


def load_comparisons(
    source: str, split: str = "train", *, to_comparison: ComparisonMapper | None = None
) -> list[Comparison]:
    """Return the checked comparisons of a data set.

    Rows of a hub's set that hold no comparison (a blank answer, say) are left out with a warning,
    as nobody can mend them; in a file of your own they are an error.

    Args:
        source: "tutor_replies" (bundled), a path ending in .jsonl or .parquet, or a hub id.
        split: "train" or "test", or a name of the hub's; bundled and local sets have "train" alone
            (divide that with `split_comparisons`).
        to_comparison: row to comparison, for rows of another form, e.g. `labelled_answers(...)`.
            By default `standard_comparison`, or what `HUB_SETS` says.
    Raises:
        DataError: the file is missing, a row is bad (file, line, field), the hub can't be reached.
        ConfigError: the source is none of the three, or has no such split.
    """
    kind, hub_set = kind_of(source, BUNDLED), HUB_SETS.get(source, HubSet())
    if kind != "hub" and split != "train":
        raise ConfigError(
            f"{source!r} has no split {split!r}: bundled and local sets have 'train' alone. "
            "Load that and divide it with split_comparisons."
        )
    rows = source_rows(source, hub_set.split(split), BUNDLED, hub_set.config)
    return _comparisons(rows, to_comparison or hub_set.to_comparison, skip_bad=kind == "hub")


def load_train_and_test(
    source: str, n_test: int, seed: int
) -> tuple[list[Comparison], list[Comparison]]:
    """Return (train, test) of a data set, with at most `n_test` test comparisons.

    Sets with a test split of their own keep it (its first `n_test` rows); of the others `n_test`
    rows are held out with `seed`.
    """
    train = load_comparisons(source)
    if HUB_SETS.get(source, HubSet()).test:
        return train, load_comparisons(source, "test")[:n_test] if n_test else []
    return split_comparisons(train, n_test, seed)


def split_comparisons(
    comparisons: Sequence[Comparison], n_test: int, seed: int
) -> tuple[list[Comparison], list[Comparison]]:
    """Return (train, test): `n_test` comparisons drawn with `seed`, and the others in their order.

    Others with the prompt of a test comparison are left out of the training part: several answers
    to one prompt are common in such sets.

    Raises:
        ConfigError: `n_test` is negative or leaves nothing to train on.
    """
    if not 0 <= n_test < len(comparisons):
        raise ConfigError(
            f"n_test={n_test}, but there are {len(comparisons)} comparisons. "
            f"Allowed: 0 to {len(comparisons) - 1}, so that one is left to train on."
        )
    rng = random.Random(f"test comparisons, seed {seed}")
    drawn = set(rng.sample(range(len(comparisons)), n_test))
    test = [comparisons[i] for i in sorted(drawn)]
    held_out = {_key(comparison) for comparison in test}
    train = [comparison for comparison in comparisons if _key(comparison) not in held_out]
    if not train:
        raise ConfigError(f"n_test={n_test} leaves no prompt to train on. Lower it.")
    return train, test


def _key(comparison: Comparison) -> str:
    return json.dumps(comparison.prompt, sort_keys=True)


def _comparisons(
    rows: Iterable[tuple[str, Row]], to_comparison: ComparisonMapper, skip_bad: bool
) -> list[Comparison]:
    comparisons, bad = [], []
    for where, row in rows:
        try:
            comparison = to_comparison(row)
        except FieldError as error:
            bad.append(f"{where}, {error}")
            if not skip_bad:
                raise DataError(bad[0]) from None
            continue
        if comparison is not None:
            comparisons.append(comparison)
    if not comparisons:
        first = f" The first row: {bad[0]}" if bad else ""
        raise DataError(f"The data set holds no comparisons. Give at least one row.{first}")
    if bad:
        warnings.warn(f"{len(bad)} rows are left out, the first: {bad[0]}", stacklevel=3)
    return comparisons
