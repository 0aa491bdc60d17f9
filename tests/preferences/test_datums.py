from dataclasses import replace

import pytest

from cookbook.errors import DataError
from cookbook.preferences import Comparison, build_pair, build_pairs, fit_prompt
from cookbook.preferences.datums import answer_mask
from cookbook.supervised import whole_input


def text_of(tokenizer, datum):
    return tokenizer.decode(whole_input(datum).to_ints())


def answer_of(tokenizer, datum):
    targets = [
        token
        for token, on in zip(
            datum.loss_fn_inputs["target_tokens"].data, answer_mask(datum), strict=True
        )
        if on
    ]
    return tokenizer.decode(targets)


def test_only_the_answers_and_their_ends_are_scored(renderer, tokenizer, comparison):
    pair = build_pair(renderer, comparison)
    assert answer_of(tokenizer, pair.chosen) == f"{comparison.chosen}<|im_end|>"
    assert answer_of(tokenizer, pair.rejected) == f"{comparison.rejected}<|im_end|>"
    assert set(pair.chosen.loss_fn_inputs["weights"].data) == {0.0, 1.0}
    swapped = build_pair(renderer, comparison.swapped())
    assert swapped.key == pair.key
    other = Comparison(
        prompt=comparison.prompt,
        answer_a=comparison.answer_b,
        answer_b=comparison.answer_a,
        label="A",
    )
    assert build_pair(renderer, other).key != pair.key


def test_no_answer_token_is_ever_cut(renderer, tokenizer, comparison):
    """From the length at which all fits down to where nothing does."""
    whole = build_pair(renderer, comparison)
    longest = max(whole_input(datum).length for datum in whole.datums)
    prompts, least = set(), None
    for max_length in range(longest, 1, -1):
        if least is not None:
            with pytest.raises(DataError, match=f"max_length={max_length}.*at least {least}"):
                build_pair(renderer, comparison, max_length)
            continue
        try:
            pair = build_pair(renderer, comparison, max_length)
        except DataError:
            least = max_length + 1
            continue
        assert max(whole_input(datum).length for datum in pair.datums) <= max_length
        for datum, answer in zip(
            pair.datums, (comparison.chosen, comparison.rejected), strict=True
        ):
            assert answer_of(tokenizer, datum) == f"{answer}<|im_end|>"
            assert "Be kind." in text_of(tokenizer, datum)
            assert "Is 9 one?" in text_of(tokenizer, datum)
        starts = [text_of(tokenizer, datum).rsplit("assistant\n", 1)[0] for datum in pair.datums]
        assert starts[0] == starts[1]
        prompts.add(starts[0])
    assert least is not None
    assert {("What is a prime?" in prompt) for prompt in prompts} == {True, False}


def test_fit_prompt_drops_whole_turns_oldest_first():
    roles = ("system", "user", "assistant", "user", "assistant", "tool", "assistant", "user")
    prompt = [{"role": role, "content": str(i)} for i, role in enumerate(roles)]
    kept = [
        [int(message["content"]) for message in fit_prompt(prompt, len, length)]
        for length in (8, 7, 6, 5, 2)
    ]
    assert kept == [[*range(8)], [0, 3, 4, 5, 6, 7], [0, 3, 4, 5, 6, 7], [0, 7], [0, 7]]
    assert fit_prompt(prompt, len, None) == prompt
    with pytest.raises(DataError, match=r"takes 2 tokens .* max_length=1.*at least 2"):
        fit_prompt(prompt, len, 1)
    ends_with_tool = prompt[:6]
    assert [m["content"] for m in fit_prompt(ends_with_tool, len, 3)] == ["0", "5"]
    with pytest.raises(DataError, match="takes 1 tokens"):
        fit_prompt(prompt[1:2], len, 0)


def test_what_is_too_long_is_left_out_and_counted(renderer, comparison):
    short = replace(comparison, answer_a="x", answer_b="y")
    longest = max(whole_input(datum).length for datum in build_pair(renderer, short, 30).datums)
    with pytest.warns(UserWarning, match=r"1 of 2 comparisons are left out. .*max_length="):
        assert [*build_pairs(renderer, {4: short, 7: comparison}, longest)] == [4]


def test_a_tie_has_no_pair(renderer):
    tie = Comparison(
        prompt=[{"role": "user", "content": "q"}], answer_a="x", answer_b="y", label="Tie"
    )
    with pytest.raises(DataError, match="A tie has neither"):
        build_pair(renderer, tie)
