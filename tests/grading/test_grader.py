import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from cookbook.errors import ConfigError
from cookbook.grading import MathGrader, last_boxed
from tests.grading import verdicts

BOMB = r"9^{9^{9^{9}}}"


@pytest.fixture(scope="module")
def grader() -> Iterator[MathGrader]:
    """A patient grader: a busy machine must not turn a right answer into a timeout."""
    grader = MathGrader(limit_s=30)
    yield grader
    grader.close()


def worker_of(grader: MathGrader) -> subprocess.Popen:
    assert grader._worker
    return grader._worker.process


def deviations(cases, judge):
    wrong = {(answer, gold) for answer, gold, right in cases if judge(answer, gold) != right}
    known = {(answer, gold) for answer, gold, _ in cases} & set(verdicts.DEVIATIONS)
    return wrong, known


def test_there_are_enough_cases_and_each_stands_once():
    tables = [table for table in vars(verdicts).values() if isinstance(table, list)]
    pairs = [(answer, gold) for table in tables for answer, gold, _ in table]
    assert len(pairs) >= 200
    replies = {(answer, gold) for answer, gold, _ in verdicts.REPLIES}
    assert len(set(pairs)) + len(replies & set(pairs[: -len(verdicts.REPLIES)])) == len(pairs)
    assert set(verdicts.DEVIATIONS) <= set(pairs)


@pytest.mark.parametrize(
    "table",
    [
        "INTEGERS",
        "DECIMALS_AND_FRACTIONS",
        "PERCENT_MONEY_UNITS",
        "ROOTS_POWERS_CONSTANTS",
        "SETS_TUPLES_INTERVALS",
        "EXPRESSIONS",
        "SCRIPTS_AND_SIGNS",
        "HOSTILE",
    ],
)
def test_verdicts(grader, table):
    wrong, known = deviations(getattr(verdicts, table), grader.is_correct)
    assert wrong == known
    assert grader.timeouts == 0


def test_verdicts_on_whole_replies(grader):
    def judge(reply, gold):
        boxed = last_boxed(reply)
        return boxed is not None and grader.is_correct(boxed, gold)

    wrong, known = deviations(verdicts.REPLIES, judge)
    assert wrong == known


@pytest.mark.slow
def test_time_bombs_end_at_the_limit_and_the_next_question_is_answered():
    grader = MathGrader(limit_s=0.5)
    for bomb, gold, _ in verdicts.BOMBS:
        grader.close()
        assert not grader.is_correct("x", "y")  # the start of a worker is not on the clock
        grader.timeouts, began = 0, time.monotonic()
        assert not grader.is_correct(bomb, gold)
        assert time.monotonic() - began < 2.5  # the limit, and room for a busy machine
        assert grader.timeouts == 1
    grader.limit_s = 30
    assert grader.is_correct(r"\frac{1}{2}", "0.5")
    assert grader.timeouts == 1
    grader.close()


def test_a_killed_worker_is_replaced(grader):
    assert grader.is_correct("1/2", "0.5")
    first = worker_of(grader)
    first.kill()
    first.wait()
    assert grader.is_correct("1/2", "0.5")
    assert worker_of(grader).pid != first.pid


def test_a_worker_that_dies_during_a_question_counts_and_is_replaced():
    grader = MathGrader(limit_s=30)
    assert grader.is_correct("1/2", "0.5")
    with ThreadPoolExecutor() as pool:
        verdict = pool.submit(grader.is_correct, BOMB, "5")
        time.sleep(0.3)
        worker_of(grader).kill()
        assert verdict.result() is False
    assert grader.timeouts == 1
    assert grader.is_correct("1/2", "0.5")
    grader.close()


def test_eight_threads_at_once(grader):
    questions = [(f"{n}/2", str(n / 2 + n % 2)) for n in range(80)]
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(lambda question: grader.is_correct(*question), questions))
    assert verdicts == [n % 2 == 0 for n in range(80)]


def test_easy_questions_need_no_worker():
    grader = MathGrader()
    assert grader.is_correct(r"\frac{1}{2}", r"\frac{1}{2}")
    assert grader.is_correct("1,000", "1000")
    assert not grader.is_correct("7", "8")
    assert not grader.is_correct("x" * 10_000, "8")
    assert grader._worker is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces the limit reliably")
def test_the_workers_memory_is_bounded(grader):
    assert grader.is_correct("1/2", "0.5")
    soft, _ = psutil.Process(worker_of(grader).pid).rlimit(psutil.RLIMIT_AS)
    assert soft == 1024 * 2**20


def test_a_worker_without_enough_memory_to_start_is_an_error_not_a_verdict():
    if sys.platform != "linux":
        pytest.skip("only Linux enforces the limit reliably")
    with pytest.raises(ConfigError, match=r"worker process did not start.*Install the package"):
        MathGrader(memory_mib=20).is_correct("1/2", "0.5")


@pytest.mark.parametrize("limits", [{"limit_s": 0}, {"limit_s": -1.0}, {"memory_mib": 0}])
def test_bad_limits(limits):
    with pytest.raises(ConfigError, match="both must be positive"):
        MathGrader(**limits)


def test_the_worker_ends_with_its_parent_even_in_the_middle_of_a_question():
    program = (
        "import threading, time\n"
        "from cookbook.grading import MathGrader\n"
        "grader = MathGrader(limit_s=1)\n"
        "grader.is_correct('x', 'y')\n"
        "print(grader._worker.process.pid, flush=True)\n"
        f"grader.is_correct({BOMB!r}, '5')\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout
    worker = psutil.Process(int(parent.stdout.readline()))
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    psutil.wait_procs([worker], timeout=20)
    assert not worker.is_running()
