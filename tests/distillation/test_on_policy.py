"""The teacher's advantages: by hand, against the exact gradient of the KL, routed, resumed."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from cookbook.distillation import ReverseKL, Teacher, reverse_kl_rows
from cookbook.errors import ConfigError
from cookbook.rl import Group, Row, Task, group_rows
from tests.fake_training import Killed
from tests.rl.fakes import STOP, Sampler, TokenRenderer, episode, problem, turn, user
from tests.rl.runs import guess, outcome, run, timeless


def one_token_row(token, logprob):
    return Row(
        tokens=np.array([5, token]),
        sampled=np.array([False, True]),
        logprobs=np.array([0.0, logprob]),
        advantages=np.array([0.0, 123.0]),
    )


def test_by_hand():
    row = Row(
        tokens=np.array([5, 6, 7, 8]),
        sampled=np.array([False, True, False, True]),
        logprobs=np.array([0, -1.0, 0, -2.0]),
        advantages=np.array([0, 9.0, 0, 9.0]),
    )
    (found,) = reverse_kl_rows([row], [np.array([0, -3.5, -7.0, -0.5])])
    assert found.advantages.tolist() == [0, -2.5, 0, 1.5]
    assert row.advantages.tolist() == [0, 9, 0, 9], "the rows that were given are left alone"


def test_a_student_like_its_teacher_has_no_advantage():
    (found,) = reverse_kl_rows([one_token_row(6, -0.7)], [np.array([0.0, -0.7])])
    assert not found.advantages.any()


def test_the_expected_policy_gradient_is_minus_that_of_the_kl():
    """All tokens of a small vocabulary are enumerated; autograd in float64 gives the truth."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 9, generator=generator, dtype=torch.float64)
    student.requires_grad_()
    p, t = torch.log_softmax(student, 0), torch.log_softmax(teacher, 0)
    (truth,) = torch.autograd.grad((p.exp() * (p - t)).sum(), student, retain_graph=True)
    rows = [one_token_row(token, value) for token, value in enumerate(p.tolist())]
    scores = [np.array([0.0, value]) for value in t.tolist()]
    advantages = [row.advantages[1] for row in reverse_kl_rows(rows, scores)]
    chances, A = p.detach().exp(), torch.tensor(advantages)
    (estimated,) = torch.autograd.grad((chances * A * p).sum(), student)
    assert torch.allclose(estimated, -truth, atol=1e-12)
    assert float(truth.abs().max()) > 0.1


class Teachers:
    """A service whose samplers tell which model they are of."""

    def __init__(self):
        self.asked = []

    def create_sampling_client(self, **which):
        self.asked.append(which)
        return Sampler(salt={"a": 100, "b": 200}[next(iter(which.values()))[-1]])


def played(tag, prompt, tokens, name="p"):
    done = replace(
        episode(turn(prompt, tokens)),
        messages=[user(" ".join(map(str, prompt[1:]))), {"role": "assistant", "content": "x"}],
        opening=1,
    )
    return Group(problem=problem(name, tag=tag), episodes=[done, done])


def test_each_problem_is_scored_by_the_teacher_of_its_tag():
    service = Teachers()
    context = [{"role": "system", "content": "40 41 42"}]
    teachers = {"x": Teacher(model="tinker://a"), "": Teacher(model="b", context=context)}
    edit = ReverseKL(service, TokenRenderer(), teachers)
    groups = [played("x", [1, 5], [7, STOP]), played("y", [1, 6], [8, 9, STOP])]
    rows, metrics = edit(groups, [group_rows(g, np.ones(2), True) for g in groups])
    # the fake's score of a token is -(salt + token) / 100; the sampler's were -0.1, -0.2, ...
    for row in rows[0]:
        assert row.advantages == pytest.approx([0, 0, 0.1 - 1.07, 0.2 - 1.02])
    for row in rows[1]:
        assert row.advantages == pytest.approx([0, 0, 0.1 - 2.08, 0.2 - 2.09, 0.3 - 2.02])
    assert metrics["env/x/teacher_kl"] == pytest.approx((0.97 + 0.82) / 2)
    assert metrics["env/others/teacher_kl"] == pytest.approx((1.98 + 1.89 + 1.72) / 3)
    assert metrics["env/all/teacher_kl"] == pytest.approx((0.97 + 0.82 + 1.98 + 1.89 + 1.72) / 5)
    assert sorted(map(str, service.asked)) == [
        "{'base_model': 'b'}",
        "{'model_path': 'tinker://a'}",
    ]
    assert edit.describe()[""] == {"model": "b", "context": context}


def test_a_problem_without_a_teacher_is_refused():
    edit = ReverseKL(Teachers(), TokenRenderer(), {"x": Teacher(model="a")})
    group = played("y", [1, 6], [8, STOP])
    with pytest.raises(ConfigError, match="tag 'y', but teachers are there for 'x'"):
        edit([group], [group_rows(group, np.ones(2))])
    with pytest.raises(ConfigError, match="got no teachers"):
        ReverseKL(Teachers(), TokenRenderer(), {})


def distil(config, task, server, model="tinker://teacher"):
    edit = ReverseKL(server, TokenRenderer(), {"": Teacher(model=model)})
    return run(config, task, server, edit=edit)


def test_rewards_are_not_trained_on_and_groups_of_equal_rewards_are(config, server):
    constant = Task("constant", [guess(n, constant=1.0) for n in range(20, 26)])
    result = distil(config, constant, server)
    weights = server.checkpoints[result.state_path]
    assert len(weights) - 1 == config.max_steps
    for batch, _ in weights[1:]:
        for tokens, advantages in batch:
            assert len(tokens) == len(advantages)
            assert any(advantages)
    assert all(line["env/all/teacher_kl"] for line in timeless(result.log_path))


def test_killed_again_and_again_it_is_the_same_run(config, task, server, tmp_path):
    straight = replace(config, log_path=str(tmp_path / "straight"))
    expected, calls = outcome(distil(straight, task, server), server), server.n_calls
    rng = random.Random(0)
    for _ in range(8):
        server.n_calls, server.die_at = 0, rng.randrange(1, calls // 3)
        with pytest.raises(Killed):
            distil(config, task, server)
    server.die_at = None
    assert outcome(distil(config, task, server), server) == expected


def test_resuming_with_another_teacher_is_refused(config, task, server):
    server.die_at = 30
    with pytest.raises(Killed):
        distil(config, task, server)
    server.die_at = None
    with pytest.raises(ConfigError, match="edit"):
        distil(config, task, server, model="tinker://other")
    with pytest.raises(ConfigError, match="edit"):
        run(config, task, server)
