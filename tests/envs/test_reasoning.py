import importlib.util
import re
import subprocess
import sys

import pytest

from cookbook.envs import reasoning_task
from cookbook.errors import ConfigError
from tests.envs.players import answered, question_of

needs_the_extra = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None,
    reason="the optional extra 'reasoning' is not installed: it needs a C compiler",
)
TASKS = (
    "chain_sum", "gsm_symbolic", "leg_counting", "letter_counting", "gcd", "simple_equations",
    "word_sorting", "mini_sudoku", "number_sequence", "basic_arithmetic",
)  # fmt: skip


def test_without_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    words = r"Install it: pip install -e '.\[reasoning\]'.*pycosat, so it needs a C compiler"
    with pytest.raises(ConfigError, match=words):
        reasoning_task("chain_sum", n_train=1, n_test=1, seed=0)


@needs_the_extra
@pytest.mark.parametrize("name", TASKS)
def test_the_right_answer_gets_a_full_score(name):
    task = reasoning_task(name, n_train=4, n_test=2, seed=0)
    import reasoning_gym  # after the task, which supplies a missing pycosat

    problems = [*task.test, *task.train]
    assert task.name == f"reasoning_gym:{name}"
    assert len({problem.name for problem in problems}) == 6
    items = iter(reasoning_gym.create_dataset(name, size=100, seed=0))
    for problem in problems:
        item = next(item for item in items if item["question"].strip() == problem.name)
        assert question_of(problem).startswith(problem.name)
        tagged = f"So <answer>1</answer>, no: <answer>\n{item['answer']}\n</answer>"
        right = answered(problem, tagged)
        assert (right.reward, right.metrics) == (1, {"correct": 1, "format": 1})
        cut_off = answered(problem, tagged, finished=False)
        assert (cut_off.reward, cut_off.metrics) == (0, {"correct": 0, "format": 0})
        assert answered(problem, item["answer"]).metrics["format"] == 0
        for nonsense in ("", "?", "\x00", "[[[", "9" * 500):
            wrong = answered(problem, f"<answer>{nonsense}</answer>")
            assert 0 <= wrong.reward < 1
            assert wrong.metrics == {"correct": 0, "format": 1}


@needs_the_extra
@pytest.mark.slow  # a process of its own, which imports everything
def test_without_pycosat_the_other_tasks_work():
    program = (
        "import importlib.util as util\n"
        "real = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'pycosat' else real(name, *rest)\n"
        "from cookbook.envs import reasoning_task\n"
        "for name in ('gcd', 'lcm'):\n"
        "    print(len(reasoning_task(name, n_train=3, n_test=1, seed=0).train))\n"
        "import pycosat\n"
        "print(hasattr(pycosat, 'solve'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == [b"3", b"3", b"False"]


@needs_the_extra
def test_a_nearly_right_answer_is_rewarded_but_not_correct():
    problem = reasoning_task("letter_counting", n_train=1, n_test=0, seed=0).train[0]
    step = answered(problem, "<answer>12345</answer>")
    assert step.reward < 1
    assert step.metrics["correct"] == 0


@needs_the_extra
def test_settings_and_seed():
    def names(seed, **settings):
        task = reasoning_task("chain_sum", n_train=5, n_test=2, seed=seed, **settings)
        return [problem.name for problem in [*task.test, *task.train]]

    assert names(0) == names(0) != names(1)
    assert all(
        re.search(r"\d( [-+] \d){3} =", name)
        for name in names(0, min_terms=4, max_terms=4, max_digits=1)
    )


@needs_the_extra
@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("chain_sums", {}, r"cannot make 'chain_sums' .*Its tasks: .*chain_sum, "),
        ("chain_sum", {"terms": 3}, r"cannot make 'chain_sum' with \{'terms': 3\}"),
        ("chain_sum", {"min_terms": -1}, r"cannot make 'chain_sum' with"),
    ],
)
def test_unknown_tasks_and_settings(name, settings, words):
    with pytest.raises(ConfigError, match=words):
        reasoning_task(name, n_train=1, n_test=1, seed=0, **settings)


@needs_the_extra
def test_a_task_that_repeats_itself():
    settings = {"min_terms": 2, "max_terms": 2, "max_digits": 1, "allow_negation": False}
    with pytest.raises(ConfigError, match=r"n_train \+ n_test = 900, .* gave \d+ distinct"):
        reasoning_task("chain_sum", n_train=800, n_test=100, seed=0, **settings)
