"""What a limit on the length of conversations costs, counted before training."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from cookbook.errors import DataError
from cookbook.models import DEFAULT_MODEL
from cookbook.rendering import NothingToTrainError, get_renderer, render_training
from cookbook.supervised import build_datums, measure_lengths

USER, ASSISTANT = {"role": "user", "content": "Why?"}, {"role": "assistant"}
ROWS = [
    [USER, {**ASSISTANT, "content": "Because."}],
    [USER, {**ASSISTANT, "content": "Because of " + "this and " * 30 + "that."}],
    [USER, {**ASSISTANT, "content": "No."}, USER, {**ASSISTANT, "content": "So."}],
]


@pytest.fixture(scope="module")
def renderer(model_dir: Path):
    return get_renderer(AutoTokenizer.from_pretrained(model_dir), DEFAULT_MODEL)


def test_counts_are_those_of_what_is_trained(renderer):
    whole = measure_lengths(renderer, ROWS)
    for row, n, trained in zip(ROWS, whole.n_tokens, whole.n_trained, strict=True):
        tokens, weights = render_training(renderer, row)
        assert (n, trained) == (len(tokens), sum(weights))
    assert (whole.n_cut, whole.n_left_out) == (0, 0)
    assert whole.n_trained_left.tolist() == whole.n_trained.tolist()
    assert "max_length None: 0 lose their end, 0.0% of the trained tokens are lost" in str(whole)


@pytest.mark.filterwarnings("ignore:A conversation is left out")
def test_a_limit_cuts_the_ends_and_leaves_out_what_has_nothing_left(renderer):
    opening = int(measure_lengths(renderer, ROWS).n_tokens[0] - 4)  # up to the first answer
    lengths = measure_lengths(renderer, ROWS, max_length=opening + 5)
    assert lengths.n_cut == 2
    assert lengths.n_kept.max() == opening + 5
    datums = build_datums(renderer, ROWS, max_length=opening + 5)
    weights = [np.array(datum.loss_fn_inputs["weights"].data) for datum in datums]
    assert [int((w > 0).sum()) for w in weights] == lengths.n_trained_left.tolist()

    nothing = measure_lengths(renderer, ROWS, max_length=opening - 3)
    assert nothing.n_left_out == 3
    assert "100.0% of the trained tokens are lost, 3 conversations have nothing" in str(nothing)
    with pytest.raises(NothingToTrainError):
        build_datums(renderer, ROWS, max_length=opening - 3)


def test_the_selection_of_turns_counts(renderer):
    last = measure_lengths(renderer, ROWS, "last_assistant_message")
    assert last.n_trained[2] < measure_lengths(renderer, ROWS).n_trained[2]
    question_alone = [[USER], ROWS[0]]
    assert measure_lengths(renderer, question_alone).n_trained[0] == 0
    assert measure_lengths(renderer, question_alone).n_left_out == 1


def test_all_tokens_but_the_first_can_be_trained(renderer):
    lengths = measure_lengths(renderer, ROWS, "all_tokens")
    assert (lengths.n_trained == lengths.n_tokens - 1).all()


def test_a_batch_costs_its_tokens_packed_and_its_longest_padded(renderer):
    lengths = measure_lengths(renderer, ROWS)
    n = lengths.n_tokens.tolist()
    packed, padded = lengths.batch_tokens([[0, 1], [2]])
    assert packed == [n[0] + n[1], n[2]]
    assert padded == [2 * n[1], n[2]]


def test_nothing_to_measure(renderer):
    with pytest.raises(DataError, match="got no conversations"):
        measure_lengths(renderer, [])
