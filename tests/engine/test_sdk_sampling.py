"""Sampling through the SDK from the bundled model: parameters, stops, seeds, scored prompts."""

import math
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tinker
import torch
from tinker import types

from cookbook.models import DEFAULT_MODEL
from tests.engine.processes import CONTEXT
from tests.engine.sdk import datum, logprobs, prompt

PROMPT_TEXT = "The three primary colours are"


@pytest.fixture(scope="module")
def sampler(service: tinker.ServiceClient) -> tinker.SamplingClient:
    return service.create_sampling_client(base_model=DEFAULT_MODEL).result()


@pytest.fixture(scope="module")
def tokenizer(model_dir: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture(scope="module")
def text(tokenizer: Any) -> types.ModelInput:
    return types.ModelInput.from_ints(tokenizer.encode(PROMPT_TEXT))


def draw(
    sampler: tinker.SamplingClient, text: types.ModelInput, count: int = 1, **params: Any
) -> list[types.SampledSequence]:
    settings = types.SamplingParams(**{"max_tokens": 12, "temperature": 0.0, **params})
    return sampler.sample(text, count, settings).result().sequences


def tokens(sampler: tinker.SamplingClient, text: types.ModelInput, **params: Any) -> list[int]:
    return list(draw(sampler, text, **params)[0].tokens)


@pytest.fixture(scope="module")
def greedy(sampler: tinker.SamplingClient, text: types.ModelInput) -> list[int]:
    """Twelve tokens at temperature 0, with no stop at all."""
    return tokens(sampler, text, stop=[])


# Parameters.


def test_temperature_zero_is_the_same_in_every_sample_and_call(sampler, text, greedy):
    sequences = draw(sampler, text, count=3, stop=[])
    assert [list(sequence.tokens) for sequence in sequences] == [greedy] * 3


def test_every_sample_has_an_id_of_its_own(sampler, text):
    assert len({sequence.sequence_id for sequence in draw(sampler, text, count=3)}) == 3


@pytest.mark.parametrize("params", [{"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-9}])
def test_the_narrowest_filters_equal_greedy(sampler, text, greedy, params):
    assert tokens(sampler, text, stop=[], **{"temperature": 1.0, **params}) == greedy


@pytest.mark.parametrize("count", [1, 5])
def test_max_tokens_ends_a_sequence_for_its_length(sampler, text, greedy, count):
    (sequence,) = draw(sampler, text, stop=[], max_tokens=count)
    assert (list(sequence.tokens), sequence.stop_reason) == (greedy[:count], "length")
    assert len(sequence.logprobs or []) == count


def test_without_max_tokens_the_context_is_filled(tiny_service, tiny_model):
    tiny = tiny_service.create_sampling_client(base_model=str(tiny_model)).result()
    (sequence,) = draw(tiny, prompt(5, 6, 7), max_tokens=None, stop=[])
    assert (len(sequence.tokens), sequence.stop_reason) == (CONTEXT - 3, "length")


def test_a_seed_repeats_the_samples_and_each_sample_has_its_own(sampler, text):
    def drawn(seed: int | None) -> list[tuple[int, ...]]:
        params = {"temperature": 1.0, "seed": seed, "stop": [], "max_tokens": 6}
        sequences = draw(sampler, text, count=4, **params)
        return [tuple(sequence.tokens) for sequence in sequences]

    first = drawn(11)
    assert drawn(11) == first
    assert len(set(first)) == 4
    assert not set(drawn(12)) & set(first)
    assert len({*drawn(None), *drawn(None)}) == 8


def test_logprobs_are_the_models_own_whatever_the_filter(sampler, text):
    params = {"temperature": 2.0, "top_k": 20, "top_p": 0.9, "seed": 3, "stop": []}
    (sequence,) = draw(sampler, text, **params)
    whole = types.ModelInput.from_ints([*text.to_ints(), *sequence.tokens])
    scored = sampler.compute_logprobs(whole).result()[text.length :]
    assert sequence.logprobs == pytest.approx(scored, abs=1e-4)


# Stops.


def test_without_a_stop_the_end_token_ends_a_sequence_and_is_kept(sampler, tokenizer):
    chat = tokenizer.encode(
        "<|im_start|>user\nWhat is 1+1? One number only.<|im_end|>\n<|im_start|>assistant\n"
    )
    asked = types.ModelInput.from_ints(chat)
    (sequence,) = draw(sampler, asked, max_tokens=60)
    assert sequence.stop_reason == "stop"
    assert sequence.tokens[-1] == tokenizer.eos_token_id
    assert len(sequence.tokens) == len(sequence.logprobs or []) < 60
    beyond = tokens(sampler, asked, stop=[], max_tokens=len(sequence.tokens) + 3)
    assert beyond[: len(sequence.tokens)] == list(sequence.tokens)
    assert len(beyond) == len(sequence.tokens) + 3  # [] means: not even then
    explicit = draw(sampler, asked, stop=["never said"], max_tokens=60)[0]
    assert list(explicit.tokens) == list(sequence.tokens)  # the end token counts beside others


def test_stop_tokens_end_a_sequence(sampler, text, greedy):
    wanted = greedy[4]
    (sequence,) = draw(sampler, text, stop=[1, wanted])
    assert list(sequence.tokens) == greedy[: greedy.index(wanted) + 1]
    assert sequence.stop_reason == "stop"


@pytest.mark.parametrize("form", [str, list])
def test_a_stop_text_may_span_tokens(sampler, text, tokenizer, greedy, form):
    pieces = [tokenizer.decode([token]) for token in greedy]
    stop = pieces[3][-1:] + pieces[4] + pieces[5][:1]
    ends = next(i for i in range(len(greedy)) if stop in tokenizer.decode(greedy[: i + 1]))
    given = stop if form is str else ["never said", stop]
    (sequence,) = draw(sampler, text, stop=given)
    assert (list(sequence.tokens), sequence.stop_reason) == (greedy[: ends + 1], "stop")


# Scored prompts.


def test_prompt_logprobs_equal_the_trainers(sampler, service, text):
    scored = sampler.sample(
        text, 1, types.SamplingParams(max_tokens=1), include_prompt_logprobs=True
    ).result()
    run = service.create_lora_training_client(sampler.get_base_model(), rank=1, seed=0).result()
    forward = run.forward([datum(text.to_ints())], "cross_entropy").result()
    assert scored.prompt_logprobs is not None
    assert scored.prompt_logprobs[0] is None
    assert scored.prompt_logprobs[1:] == pytest.approx(logprobs(forward)[0], abs=1e-4)
    assert sampler.compute_logprobs(text).result() == scored.prompt_logprobs


def test_the_most_likely_tokens_at_each_position_of_the_prompt(sampler, text):
    answer = sampler.sample(
        text,
        1,
        types.SamplingParams(max_tokens=1),
        include_prompt_logprobs=True,
        topk_prompt_logprobs=5,
    ).result()
    table, own = answer.topk_prompt_logprobs, answer.prompt_logprobs
    assert table is not None
    assert own is not None
    assert len(table) == text.length
    assert table[0] is None
    for token, logprob, row in zip(text.to_ints()[1:], own[1:], table[1:], strict=True):
        assert row is not None
        values = [value for _, value in row]
        assert len({entry for entry, _ in row}) == 5
        assert values == sorted(values, reverse=True)
        assert sum(map(math.exp, values)) <= 1 + 1e-5
        assert logprob is not None
        assert logprob <= values[0] + 1e-5
        if token in dict(row):
            assert dict(row)[token] == pytest.approx(logprob, abs=1e-5)
    alone = sampler.sample(
        text, 1, types.SamplingParams(max_tokens=1), topk_prompt_logprobs=5
    ).result()
    assert alone.topk_prompt_logprobs == table
    assert alone.prompt_logprobs is None


def test_the_next_token_of_the_table_is_the_greedy_one(sampler, text, greedy):
    longer = types.ModelInput.from_ints([*text.to_ints(), *greedy[:4]])
    answer = sampler.sample(
        longer, 1, types.SamplingParams(max_tokens=1), topk_prompt_logprobs=1
    ).result()
    table = answer.topk_prompt_logprobs
    assert table is not None
    assert [row[0][0] for row in table[-4:] if row] == greedy[:4]


def test_the_most_likely_tokens_at_each_sampled_position(sampler, text, greedy):
    settings = types.SamplingParams(max_tokens=4, temperature=0.0)
    (sequence,) = sampler.sample(text, 1, settings, topk_sample_logprobs=3).result().sequences
    assert sequence.tokens == greedy[:4]
    table = sequence.topk_logprobs
    assert len(table) == 4
    for token, logprob, row in zip(sequence.tokens, sequence.logprobs, table, strict=True):
        assert len(row) == 3
        assert row[0][0] == token
        assert row[0][1] == pytest.approx(logprob, abs=1e-5)
        assert row[0][1] >= row[1][1] >= row[2][1]
    (plain,) = sampler.sample(text, 1, settings).result().sequences
    assert not plain.topk_logprobs


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_chosen_tokens_are_scored_at_each_position_of_the_prompt(sampler, text, form):
    tokens = text.to_ints()
    ids = torch.full((len(tokens) - 1, 9), -1)
    ids[:, 0] = torch.tensor(tokens[1:])
    ids[2, 2] = 7
    make = types.TensorData.from_torch
    asked = make(ids) if form == "dense" else types.TensorData.from_torch_sparse(ids, pad_value=-1)
    assert (asked.sparse_crow_indices is None) == (form == "dense")
    answer = sampler.sample(
        text,
        1,
        types.SamplingParams(max_tokens=1),
        include_prompt_logprobs=True,
        target_prompt_logprobs=asked,
    ).result()
    scores = answer.target_prompt_logprobs
    assert (scores.sparse_crow_indices is None) == (form == "dense")
    assert scores.sparse_col_indices == asked.sparse_col_indices
    table = scores.to_numpy()
    np.testing.assert_allclose(table[:, 0], answer.prompt_logprobs[1:], atol=1e-5)
    assert table[2, 2] < 0
    assert np.count_nonzero(table[:, 1:]) == 1


def test_alternatives_are_drawn_at_each_position_of_the_prompt(sampler, text, greedy):
    prompt = types.ModelInput.from_ints([*text.to_ints(), *greedy[:3]])
    cold = types.SamplingParams(max_tokens=1, temperature=0.0)
    drawn = sampler.sample(prompt, 1, cold, prompt_alt_tokens_k=2).result().prompt_alt_tokens
    assert drawn.tokens.to_numpy().shape == (prompt.length - 1, 2)
    assert drawn.tokens.to_numpy()[-3:].tolist() == [[token, token] for token in greedy[:3]]
    warm = types.SamplingParams(max_tokens=1, seed=3)
    answers = [
        sampler.sample(prompt, 1, warm, prompt_alt_tokens_k=200, topk_prompt_logprobs=1).result()
        for _ in range(2)
    ]
    first, again = (answer.prompt_alt_tokens.tokens.to_numpy() for answer in answers)
    assert (first == again).all()
    likely, logprob = answers[0].topk_prompt_logprobs[-1][0]
    share = (first[-1] == likely).mean()
    expected = math.exp(logprob)
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / 200) + 1e-9
    scores = answers[0].prompt_alt_tokens.logprobs.to_numpy()
    assert scores[-1][first[-1] == likely] == pytest.approx(logprob, abs=1e-5)


def test_only_the_last_tokens_of_the_prompt_are_scored_on_request(sampler, text):
    settings = types.SamplingParams(max_tokens=1)
    whole, part = (
        sampler.sample(
            text,
            1,
            settings,
            include_prompt_logprobs=True,
            topk_prompt_logprobs=2,
            prompt_logprobs_last_n=n,
        ).result()
        for n in (None, 3)
    )
    before = text.length - 3
    assert part.prompt_logprobs[:before] == [None] * before
    assert part.prompt_logprobs[before:] == pytest.approx(whole.prompt_logprobs[before:], abs=1e-5)
    assert part.topk_prompt_logprobs[:before] == [None] * before
    ids = [[token for token, _ in row] for row in part.topk_prompt_logprobs[before:]]
    assert ids == [[token for token, _ in row] for row in whole.topk_prompt_logprobs[before:]]


# Many at once.


def test_a_cancelled_request_leaves_its_place_to_others(tiny_engine, tiny_service, tiny_model):
    sampler = tiny_service.create_sampling_client(base_model=str(tiny_model)).result()
    endless = types.SamplingParams(max_tokens=120, stop=[])
    waiting = [sampler.sample(prompt(5, 6), 64, endless) for _ in range(40)]
    for request in waiting[1:]:
        request.future().cancel()
    deadline = time.monotonic() + 30
    while not all(request.future().cancelled() for request in waiting[1:]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    start = time.monotonic()
    assert len(sampler.sample(prompt(7), 1, endless).result().sequences[0].tokens) == 120
    assert len(waiting[0].result().sequences) == 64
    assert time.monotonic() - start < 60


def test_requests_that_run_together_do_not_touch_each_other(sampler, tokenizer):
    texts = ["Once upon a time", "2, 4, 6, 8,", "def add(a, b):", "In the morning the old man"]
    prompts = [types.ModelInput.from_ints(tokenizer.encode(text)) for text in texts]
    settings = [
        types.SamplingParams(max_tokens=4 + 3 * i, temperature=0.0, stop=[]) for i in range(4)
    ]
    pairs = list(zip(prompts, settings, strict=True))
    alone = [sampler.sample(p, 1, s).result().sequences[0] for p, s in pairs]
    flying = [sampler.sample(p, 2, s) for p, s in pairs]
    for one, future in zip(alone, flying, strict=True):
        for sequence in future.result().sequences:
            assert list(sequence.tokens) == list(one.tokens)
            np.testing.assert_allclose(sequence.logprobs or [], one.logprobs or [], atol=1e-3)


def test_a_sampler_travels_to_another_client(sampler, text, greedy, engine):
    copy = pickle.loads(pickle.dumps(sampler))
    assert tokens(copy, text, stop=[]) == greedy
    handle = sampler.get_sampler_handle()
    other = tinker.SamplingClient.from_sampler_handle(handle, api_key=engine.api_key)
    assert tokens(other, text, stop=[]) == greedy


def test_a_sampler_knows_its_base_model(sampler):
    assert sampler.get_base_model() == DEFAULT_MODEL
