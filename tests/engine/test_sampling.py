"""The choice of a token on tiny vocabularies, where everything can be counted."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from cookbook.engine.sampling import (
    SamplingSettings,
    Sequence,
    _draw,
    choose,
    new_sequence,
)

logit_rows = st.lists(
    st.one_of(st.floats(-30, 30, width=32), st.just(0.0), st.just(-1e30)), min_size=1, max_size=11
).filter(lambda row: max(row) > -1e30)
uniforms = st.one_of(
    st.floats(0, 1, exclude_max=True), st.just(0.0), st.just(math.nextafter(1.0, 0.0))
)


def sequence(uniform: float = 0.5, **settings) -> Sequence:
    """A sequence whose random number is the given one."""
    generator = SimpleNamespace(random=lambda: uniform)
    return Sequence(SamplingSettings(max_tokens=9, **settings), generator)  # pyright: ignore


def kept(row: list[float], top_k: int, top_p: float, temperature: float) -> set[int]:
    """The tokens that the definition of top-k, then top-p, leaves; rounding left aside."""
    shifted = (np.asarray(row, np.float64) - max(row)) / temperature
    probabilities = np.exp(shifted)
    order = sorted(range(len(row)), key=lambda i: -probabilities[i])
    order = order[: top_k if top_k > 0 else None]
    total = probabilities[order].sum()
    tokens, mass = set(), 0.0
    for i in order:
        if mass >= top_p * total * (1 + 1e-5):
            break
        tokens |= {j for j in range(len(row)) if probabilities[j] == probabilities[i]}  # ties
        mass += probabilities[i]
    return tokens


@given(logit_rows, uniforms, st.integers(-1, 4).filter(bool), st.floats(0.01, 1), st.floats(0.1, 4))
def test_only_tokens_inside_top_k_and_top_p_are_chosen(row, uniform, top_k, top_p, temperature):
    one = sequence(uniform, top_k=top_k, top_p=top_p, temperature=temperature)
    (token,), (logprob,) = choose(torch.tensor([row]), [one])
    assert token in kept(row, top_k, top_p, temperature)
    expected = torch.tensor(row).log_softmax(-1)[token].item()
    assert logprob == pytest.approx(expected, abs=1e-5)  # of the model, whatever the filter


@given(logit_rows, uniforms, st.sampled_from([{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 0.0}]))
def test_the_narrowest_filters_are_greedy(row, uniform, settings):
    (token,), _ = choose(torch.tensor([row]), [sequence(uniform, **settings)])
    assert row[token] == pytest.approx(max(row), abs=1e-5)


@given(logit_rows, uniforms, st.floats(1e-45, 1e-3))
@example([20.0, 10.0, 20.5], 0.9, 1e-45)
def test_a_vanishing_temperature_is_greedy(row, uniform, temperature):
    distinct = [value + 10 * i for i, value in enumerate(sorted(row))]
    (token,), _ = choose(torch.tensor([distinct]), [sequence(uniform, temperature=temperature)])
    assert token == len(row) - 1


@given(
    st.lists(st.one_of(st.just(0.0), st.floats(1e-30, 1)), min_size=1, max_size=40).filter(any),
    st.integers(0, 40),
    st.integers(-2, 2),
    uniforms,
)
def test_no_token_of_probability_zero_is_drawn(weights, boundary, ulps, uniform):
    probabilities = torch.tensor([weights], dtype=torch.float32)
    # Aim at a boundary between two tokens, where rounding decides, as well as anywhere.
    ends = probabilities[0].double().cumsum(-1)
    aimed = float(ends[min(boundary, len(weights) - 1)] / ends[-1])
    for _ in range(abs(ulps)):
        aimed = math.nextafter(aimed, 2.0 if ulps > 0 else -1.0)
    for point in (uniform, min(max(aimed, 0.0), math.nextafter(1.0, 0.0))):
        token = int(_draw(probabilities, [sequence(point)])[0])
        assert token < len(weights)
        assert probabilities[0, token] > 0


def test_rounding_between_blocks_draws_no_impossible_token():
    """The draw looks for a block of 6 tokens first; each here begins with an impossible one."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        weights = rng.random(36) * rng.choice([1, 1e-3, 1e-7], 36)
        weights[::6] = 0
        row = torch.tensor(weights, dtype=torch.float32)
        ends = row.view(6, 6).sum(-1, dtype=torch.float64).cumsum(-1)
        aimed = [float(end / ends[-1]) for end in ends[:-1]]
        aimed += [math.nextafter(u, 0.0) for u in aimed] + [math.nextafter(u, 1.0) for u in aimed]
        drawn = _draw(row.repeat(len(aimed), 1), [sequence(u) for u in aimed])
        assert bool((row[drawn] > 0).all())


def test_draws_invert_the_cumulative_distribution():
    probabilities = torch.tensor([[0.1, 0.0, 0.4, 0.25, 0.25, 0.0, 0.0]])
    points = {0.0: 0, 0.05: 0, 0.15: 2, 0.45: 2, 0.55: 3, 0.74: 3, 0.76: 4, 0.999999999: 4}
    drawn = _draw(probabilities.repeat(len(points), 1), [sequence(u) for u in points])
    assert drawn.tolist() == list(points.values())


def test_rows_keep_their_own_settings():
    rows = torch.tensor([[0.0, 1.0, 2.0]]).repeat(3, 1)
    mixed = [
        sequence(0.0, temperature=0.0),
        sequence(0.0),
        sequence(0.0, top_k=2, temperature=50.0),
    ]
    tokens, _ = choose(rows, mixed)
    assert tokens == [2, 0, 1]


@given(st.integers(-(2**70), 2**70), st.integers(0, 5))
def test_a_seed_and_an_index_name_one_stream(seed, index):
    settings = SamplingSettings(max_tokens=1, seed=seed)
    streams = [new_sequence(settings, i).generator.random() for i in (index, index, index + 1)]
    assert streams[0] == streams[1] != streams[2]


# When to stop.


def accept_all(settings: SamplingSettings, tokens: list[int], tokenizer: Tokenizer) -> Sequence:
    one = new_sequence(settings, 0)
    for token in tokens:
        one.accept(token, -1.0, tokenizer)
        if one.stop_reason:
            break
    return one


@pytest.fixture(scope="module")
def tokenizer(model_dir) -> Tokenizer:
    return Tokenizer.from_file(str(model_dir / "tokenizer.json"))


@pytest.mark.parametrize(
    ("text", "stop", "kept"),
    [
        ("one two three four", " two", "one two"),
        ("one two three four", "wo thr", "one two three"),  # across tokens, inside both
        ("one two three four", "e", "one"),  # inside the first token, which stays whole
        ("naïve 🙂 yes", "🙂", "naïve 🙂"),  # several tokens for one character
        ("a" * 60 + " end. more", "end.", "a" * 60 + " end."),
    ],
)
def test_a_stop_text_ends_with_the_token_that_completes_it(tokenizer, text, stop, kept):
    settings = SamplingSettings(max_tokens=99, stop_texts=("absent", stop))
    one = accept_all(settings, tokenizer.encode(text).ids, tokenizer)
    assert one.stop_reason == "stop"
    assert tokenizer.decode(one.tokens, skip_special_tokens=False) == kept
    assert len(one.tokens) == len(one.logprobs)


def test_a_stop_token_is_kept_and_beats_the_length(tokenizer):
    settings = SamplingSettings(max_tokens=3, stop_ids=frozenset({7}))
    one = accept_all(settings, [5, 6, 7, 8], tokenizer)
    assert (one.tokens, one.stop_reason) == ([5, 6, 7], "stop")
    one = accept_all(settings, [5, 6, 8, 7], tokenizer)
    assert (one.tokens, one.stop_reason) == ([5, 6, 8], "length")
