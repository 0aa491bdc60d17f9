import numpy as np
import pytest

from cookbook.rl import Group, episode_rows, group_rows
from tests.rl.fakes import episode, problem, turn


def inputs(row):
    datum = row.datum()
    return datum.model_input.to_ints(), {k: v.tolist() for k, v in datum.loss_fn_inputs.items()}


def test_one_turn():
    (row,) = episode_rows(episode(turn([5, 6, 7], [8, 9], [-0.5, -0.25])), 2.0)
    assert row.tokens.tolist() == [5, 6, 7, 8, 9]
    assert row.sampled.tolist() == [False, False, False, True, True]
    read, given = inputs(row)
    assert read == [5, 6, 7, 8]
    assert given == {
        "target_tokens": [6, 7, 8, 9],
        "logprobs": [0, 0, -0.5, -0.25],
        "advantages": [0, 0, 2, 2],
    }


def test_the_server_gets_the_types_it_wants():
    (row,) = episode_rows(episode(turn([5], [8])), 1.0)
    types = {name: data.dtype for name, data in row.datum().loss_fn_inputs.items()}
    assert types == {"target_tokens": "int64", "logprobs": "float32", "advantages": "float32"}


def test_turns_that_extend_each_other_share_a_row():
    """Three turns, with a tool's answer after the first and the user's after the second."""
    first, second = [1, 2, 10, 11], [1, 2, 10, 11, 20, 21, 22, 12]
    played = episode(
        turn([1, 2], [10, 11], [-1, -2]),
        turn([*first, 20, 21, 22], [12], [-3]),
        turn([*second, 30], [13, 14], [-4, -5]),
    )
    (row,) = episode_rows(played, -0.5)
    assert row.tokens.tolist() == [1, 2, 10, 11, 20, 21, 22, 12, 30, 13, 14]
    read, given = inputs(row)
    assert read == row.tokens[:-1].tolist()
    assert given["target_tokens"] == row.tokens[1:].tolist()
    assert given["logprobs"] == [0, -1, -2, 0, 0, 0, -3, 0, -4, -5]
    assert given["advantages"] == [0, -0.5, -0.5, 0, 0, 0, -0.5, 0, -0.5, -0.5]


def test_a_history_rendered_anew_starts_a_row():
    played = episode(
        turn([1, 2], [10, 11]),
        turn([1, 2, 10, 11, 3], [12]),
        turn([1, 2, 99, 3, 12, 4], [13]),  # 10, 11 are now one token
        turn([1, 2, 99, 3, 12, 4, 13, 5], [14]),
    )
    rows = episode_rows(played, 1.0)
    assert [row.tokens.tolist() for row in rows] == [
        [1, 2, 10, 11, 3, 12],
        [1, 2, 99, 3, 12, 4, 13, 5, 14],
    ]
    assert [row.tokens[row.sampled].tolist() for row in rows] == [[10, 11, 12], [13, 14]]


@pytest.mark.parametrize("shorter", [[1], [1, 2], [1, 2, 10]])
def test_a_prompt_that_lost_its_end_starts_a_row(shorter):
    rows = episode_rows(episode(turn([1, 2], [10, 11]), turn(shorter, [12])), 1.0)
    assert [row.tokens.tolist() for row in rows] == [[1, 2, 10, 11], [*shorter, 12]]


def test_a_prompt_that_adds_nothing_goes_on_in_the_row():
    (row,) = episode_rows(episode(turn([1, 2], [10]), turn([1, 2, 10], [11])), 1.0)
    assert row.tokens.tolist() == [1, 2, 10, 11]
    assert row.sampled.tolist() == [False, False, True, True]


def test_every_sampled_token_is_trained_once_with_its_own_logprob():
    rng = np.random.default_rng(0)
    for _ in range(50):
        turns, seen, sampled = [], [], []
        for number in range(rng.integers(1, 5)):
            fresh = [int(t) for t in rng.integers(100, 200, size=rng.integers(1, 4))]
            prompt = fresh if number and rng.random() < 0.3 else [*seen, *fresh]
            tokens = [int(t) for t in rng.integers(200, 300, size=rng.integers(1, 4))]
            logprobs = [float(v) for v in -rng.integers(1, 64, size=len(tokens)) / 8]
            turns.append(turn(prompt, tokens, logprobs))
            sampled += zip(tokens, logprobs, strict=True)
            seen = [*prompt, *tokens]
        trained = []
        for row in episode_rows(episode(*turns), 0.5):
            _, given = inputs(row)
            columns = zip(
                given["target_tokens"], given["logprobs"], given["advantages"], strict=True
            )
            trained += [(token, logprob) for token, logprob, a in columns if a]
        assert trained == sampled


def test_a_group_gives_each_episode_its_own_advantage():
    group = Group(
        problem=problem("p"), episodes=[episode(turn([1], [7])), episode(turn([1], [8, 9]))]
    )
    rows = group_rows(group, np.array([0.5, -0.5]))
    assert [row.advantages.tolist() for row in rows] == [[0, 0.5], [0, -0.5, -0.5]]


def test_a_group_that_teaches_nothing_has_no_rows_unless_a_penalty_comes():
    group = Group(problem=problem("p"), episodes=[episode(turn([1], [7]))] * 2)
    assert group_rows(group, np.zeros(2)) == []
    assert len(group_rows(group, np.zeros(2), keep_constant=True)) == 2
    assert group_rows(Group(problem=problem("p"), episodes=[]), np.zeros(0), True) == []


def test_advantages_of_another_group_are_refused():
    group = Group(problem=problem("p"), episodes=[episode(turn([1], [7]))] * 2)
    with pytest.raises(ValueError, match=r"argument 2 is (shorter|longer)"):
        group_rows(group, np.array([1.0, -0.5, -0.5]))
