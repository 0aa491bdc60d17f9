"""The generative judge: what it reads, what it is trained on, what its verdicts are worth."""

import asyncio
import re
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest

from cookbook.errors import DataError
from cookbook.preferences import (
    Comparison,
    Judge,
    Verdicts,
    calibration,
    calibration_error,
    judge_datum,
    judge_datums,
    judge_messages,
    judge_tokens,
    symmetrised,
)
from cookbook.supervised import whole_input

PROMPT = [{"role": "user", "content": "Is 9 a prime?"}]


def comparison(a, b, label="A", prompt=PROMPT):
    return Comparison(prompt=prompt, answer_a=a, answer_b=b, label=label)


# ---- what it reads


def test_the_label_is_the_token_after_the_question(tokenizer, renderer):
    messages = judge_messages(PROMPT, "No.", "Yes.")
    tokens, labels = judge_tokens(renderer, PROMPT, "No.", "Yes.")
    assert tokens == renderer.render_ids(messages, add_generation_prompt=True)
    assert {tokenizer.decode([token]) for token in labels.values()} == {"A", "B", "T"}


@pytest.mark.parametrize("label", ["A", "B", "Tie"])
def test_only_the_label_is_trained_and_everything_is_shown(tokenizer, renderer, label):
    datum = judge_datum(renderer, comparison("No, 3 divides it.", "Yes, it is.", label))
    tokens = whole_input(datum).to_ints()
    weights = datum.loss_fn_inputs["weights"].data
    assert list(weights) == [0.0] * (len(tokens) - 2) + [1.0]
    assert datum.loss_fn_inputs["target_tokens"].data[-1] == tokens[-1]
    assert tokenizer.decode([tokens[-1]]) == label[0]
    text = tokenizer.decode(tokens)
    assert "Is 9 a prime?\n\nA: No, 3 divides it.\n\nB: Yes, it is." in text


def test_earlier_turns_are_told_with_their_speaker(comparison_of_turns, tokenizer, renderer):
    tokens, _ = judge_tokens(renderer, comparison_of_turns.prompt, "No.", "Yes.")
    text = tokenizer.decode(tokens)
    assert "system: Be kind.\nuser: What is a prime?\nassistant: A number with two" in text
    assert "user: Is 9 one?\n\nA: No.\n\nB: Yes." in text


@pytest.fixture
def comparison_of_turns(comparison):
    return comparison


def test_what_is_too_long_loses_its_oldest_turns_and_never_an_answer(
    comparison_of_turns, tokenizer, renderer
):
    given = comparison_of_turns
    whole = len(whole_input(judge_datum(renderer, given)).to_ints())
    kept = {whole_input(judge_datum(renderer, given, whole)).length}
    for max_length in range(whole - 1, 0, -1):
        try:
            tokens = whole_input(judge_datum(renderer, given, max_length)).to_ints()
        except DataError as error:
            least = int(re.findall(r"allow at least (\d+)", str(error))[0])
            break
        text = tokenizer.decode(tokens)
        assert len(tokens) <= max_length
        assert text.endswith("assistant\nA")
        assert all(part in text for part in ("Be kind.", "Is 9 one?", given.answer_a))
        assert f"\n\nB: {given.answer_b}" in text
        assert "What is a prime?" not in text
        kept.add(len(tokens))
    assert least == max_length + 1 == min(kept)
    with pytest.raises(DataError, match="answers are never cut"):
        judge_datum(renderer, given, 10)


def test_both_orders_of_a_comparison_are_trained_together(renderer):
    pairs = [comparison("No.", "Yes."), comparison("Two.", "Three.", "B")]
    built = [whole_input(datum).to_ints() for datum in judge_datums(renderer, pairs)]
    assert built == [
        whole_input(judge_datum(renderer, shown)).to_ints() for shown in symmetrised(pairs)
    ]
    labels = [tokens[-1] for tokens in built]
    assert labels[0::2] != labels[1::2]
    assert sorted(labels[:2]) == sorted(labels[2:])


# ---- a judge without a model: longer answers are better, and the first place helps


class LengthJudge:
    """Samples a label; log-odds of the first: the difference in length plus a bias."""

    def __init__(self, tokenizer, labels, bias=0.0, draw=None):
        self.tokenizer, self.labels, self.bias, self.draw = tokenizer, labels, bias, draw
        self.rng, self.asked = np.random.default_rng(0), []

    def sample(self, prompt, num_samples, params):
        assert (num_samples, params.max_tokens, params.temperature) == (1, 1, 1.0)
        text = self.tokenizer.decode(prompt.to_ints())
        first, second = re.findall(r"\n\nA: (.*)\n\nB: (.*)<\|im_end\|>", text)[0]
        self.asked.append((first, second))
        p = 1 / (1 + np.exp(-(len(first) - len(second)) / 4 - self.bias))
        drawn = self.draw or ("A" if self.rng.random() < p else "B")
        token, likely = {
            "A": (self.labels["A"], p),
            "B": (self.labels["B"], 1 - p),
            "Tie": (self.labels["Tie"], 0.1),
            "junk": (0, 0.1),
        }[drawn]
        sequence = SimpleNamespace(tokens=[token], logprobs=[np.log(likely)])
        future = Future()
        future.set_result(SimpleNamespace(sequences=[sequence]))
        return future


@pytest.fixture
def make_judge(tokenizer, renderer):
    _, labels = judge_tokens(renderer, PROMPT, "a", "b")

    def make(**settings):
        sampler = LengthJudge(tokenizer, labels, **settings)
        return Judge(sampler=sampler, renderer=renderer)

    return make


def labelled():
    """12 comparisons that the longer answer wins, A and B in turn."""
    pairs = [("x" * n, "y" * (n + 1 + n % 3)) for n in range(1, 13)]
    return [
        comparison(b, a, "A") if i % 2 else comparison(a, b, "B") for i, (a, b) in enumerate(pairs)
    ]


@pytest.mark.parametrize("draw", [None, "A", "B"])
def test_either_label_tells_the_probability(make_judge, draw):
    judge = make_judge(bias=0.3, draw=draw)
    found = asyncio.run(judge.probabilities([(PROMPT, "four", "to"), (PROMPT, "to", "four")]))
    assert found == pytest.approx(1 / (1 + np.exp([-0.8, 0.2])))


@pytest.mark.parametrize("draw", ["Tie", "junk"])
def test_a_tie_and_what_is_no_label_favour_nobody(make_judge, draw):
    judge = make_judge(draw=draw)
    assert asyncio.run(judge.probabilities([(PROMPT, "long one", "no")])).tolist() == [0.5]


def test_the_bias_of_a_biased_judge_is_measured_and_removed(make_judge):
    fair, biased = make_judge().verdicts(labelled()), make_judge(bias=2.0).verdicts(labelled())
    assert fair.place_bias[0] == pytest.approx(0)
    assert fair.fickle[0] == 0
    assert fair.accuracy(symmetrised=False)[0] == 1
    bias, low, high = biased.place_bias
    assert bias > 0.5
    assert low < bias < high
    assert low > 0
    assert biased.fickle[0] == 1
    assert biased.accuracy(symmetrised=False)[0] == 0.5
    assert biased.accuracy()[0] == 1
    # what is left of it in the mean of both orders
    swapped = make_judge(bias=2.0).verdicts([given.swapped() for given in labelled()])
    assert biased.probabilities == pytest.approx(1 - swapped.probabilities)
    assert Verdicts(
        both=np.stack([biased.probabilities, 1 - biased.probabilities], axis=1),
        labels=biased.labels,
    ).place_bias[0] == pytest.approx(0)


def test_margins_are_the_opposite_for_the_opposite_order(make_judge):
    judge = make_judge(bias=1.5)
    pairs = [("four", "to"), ("to", "four"), ("same", "same"), ("abc", "xyz")]
    margins = asyncio.run(judge.prefer(PROMPT, pairs))
    assert margins[0] == pytest.approx(-margins[1])
    assert margins[0] > 0
    assert margins[2:] == [0.0, pytest.approx(0)]


def test_a_blank_answer_loses_without_being_shown(make_judge):
    judge = make_judge()
    pairs = [("", "x"), ("x", " \n"), ("", " "), ("xyz", "x")]
    margins = asyncio.run(judge.prefer(PROMPT, pairs))
    assert margins[:3] == [-1.0, 1.0, 0.0]
    assert 0 < margins[3] < 1
    assert judge.sampler.asked == [("xyz", "x"), ("x", "xyz")]


def test_ties_are_left_out_of_the_accuracy():
    both = np.array([[0.9, 0.1], [0.4, 0.6], [0.9, 0.2]])
    assert Verdicts(both=both, labels=["A", "Tie", "B"]).accuracy()[0] == 0.5
    with pytest.raises(DataError, match="All comparisons are ties"):
        Verdicts(both=both[:1], labels=["Tie"]).accuracy()


def test_nothing_to_judge_is_said(make_judge):
    with pytest.raises(DataError, match="got no comparisons"):
        make_judge().verdicts([])


# ---- calibration


def test_calibration_by_hand():
    bins = calibration([0.9, 0.2, 0.8, 0.1], [True, False, False, False], n_bins=2)
    assert [(each.predicted, each.share, each.n) for each in bins] == [
        (pytest.approx(0.15), 0.0, 2),
        (pytest.approx(0.85), 0.5, 2),
    ]
    assert bins[1].low < 0.5 < bins[1].high
    assert calibration_error(bins) == pytest.approx((2 * 0.15 + 2 * 0.35) / 4)


def test_a_calibrated_predictor_has_no_error_and_a_sure_one_has():
    rng = np.random.default_rng(0)
    predicted = rng.random(20_000)
    came_true = rng.random(20_000) < predicted
    bins = calibration(predicted, came_true, 10)
    assert [each.n for each in bins] == [2000] * 10
    assert sum(each.low <= each.predicted <= each.high for each in bins) >= 8
    assert calibration_error(bins) < 0.02
    sure = calibration(np.where(predicted > 0.5, 0.99, 0.01), came_true, 10)
    assert calibration_error(sure) > 0.2


def test_more_bins_than_predictions():
    assert [each.n for each in calibration([0.5, 0.6], [True, False], 9)] == [1, 1]


@pytest.mark.parametrize(("p", "true", "n"), [([], [], 2), ([0.5], [], 2), ([0.5], [True], 0)])
def test_impossible_calibrations_are_refused(p, true, n):
    with pytest.raises(DataError, match="as many outcomes as predictions"):
        calibration(p, true, n)


def test_the_calibration_of_verdicts_is_that_of_the_favoured_answer():
    both = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7], [0.5, 0.5]])
    (low, high) = Verdicts(both=both, labels=["A", "B", "B", "B", "Tie"]).calibration(2)
    assert (low.predicted, low.share) == (pytest.approx(0.65), 0.5)
    assert (high.predicted, high.share) == (pytest.approx(0.85), 1.0)
