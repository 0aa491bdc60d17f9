"""Requests in order, and what becomes of those whose predecessor never comes."""

import threading
import time
from collections.abc import Iterator

import pytest

from cookbook.engine import scheduler as scheduling
from cookbook.engine.errors import UserError
from cookbook.engine.futures import Failure, Future
from cookbook.engine.scheduler import Scheduler

PATIENCE_S = 0.3


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scheduler]:
    monkeypatch.setattr(scheduling, "MISSING_TIMEOUT_S", PATIENCE_S)
    one = Scheduler()
    one.start()
    yield one
    assert one.stop()


def send(scheduler: Scheduler, number: int, model_id: str = "m") -> Future:
    future = Future({})
    scheduler.submit_ordered(model_id, number, future, lambda: {"number": number})
    return future


def outcome(future: Future, within_s: float = 10) -> object:
    deadline = time.monotonic() + within_s
    while future.result is None and time.monotonic() < deadline:
        time.sleep(0.005)
    return future.result


def test_numbers_run_in_order_per_model(scheduler):
    order = []

    def record(model_id: str, number: int) -> Future:
        future = Future({})
        key = (model_id, number)
        scheduler.submit_ordered(model_id, number, future, lambda: order.append(key) or {"k": 1})
        return future

    sent = [record(*key) for key in [("m", 3), ("n", 2), ("m", 1), ("n", 1), ("m", 2)]]
    assert all(outcome(future) for future in sent)
    assert [key for key in order if key[0] == "m"] == [("m", 1), ("m", 2), ("m", 3)]
    assert [key for key in order if key[0] == "n"] == [("n", 1), ("n", 2)]


def test_a_pause_is_no_reason_to_give_up_a_request(scheduler):
    """After a long pause in a notebook the chunks of a batch still arrive in any order."""
    assert outcome(send(scheduler, 1)) == {"number": 1}
    time.sleep(PATIENCE_S * 1.5)
    early = send(scheduler, 3)
    time.sleep(PATIENCE_S / 3)
    assert early.result is None
    late = send(scheduler, 2)
    assert outcome(late) == {"number": 2}
    assert outcome(early) == {"number": 3}


def test_a_number_that_never_comes_fails_those_after_it(scheduler):
    stranded = [send(scheduler, 2), send(scheduler, 4)]
    time.sleep(PATIENCE_S * 1.5)
    send(scheduler, 1, "another model")  # wakes the worker, which otherwise looks every 5 s
    for future in stranded:
        result = outcome(future)
        assert isinstance(result, Failure)
        assert "request number 1 of m never arrived" in result.text
    late = outcome(send(scheduler, 1))
    assert isinstance(late, Failure)
    assert "number 5 is next" in late.text
    assert outcome(send(scheduler, 5)) == {"number": 5}


def test_failures_say_whose_fault_they_are(scheduler, caplog):
    def fail(error: Exception) -> Future:
        future = Future({})

        def work() -> dict:
            raise error

        scheduler.submit(future, work)
        return future

    assert outcome(fail(UserError("rank is 0"))) == Failure("rank is 0", "user")
    assert "request failed" not in caplog.text  # clients of other tests may log meanwhile
    expected = Failure("engine error: RuntimeError: no memory", "server")
    assert outcome(fail(RuntimeError("no memory"))) == expected
    assert "request failed" in caplog.text
    assert outcome(send(scheduler, 1)) == {"number": 1}


def test_sampling_goes_on_between_jobs_and_survives_its_own_failure(caplog):
    steps = []

    def advance() -> bool:
        steps.append(len(steps))
        if len(steps) == 1:
            raise RuntimeError("one bad step")
        return len(steps) < 50

    scheduler = Scheduler()
    scheduler.advance_sampling = advance
    future = Future({})
    scheduler.submit(future, lambda: {"step": len(steps)})
    scheduler.start()
    outcome(future)
    while len(steps) < 50:
        time.sleep(0.005)
    assert scheduler.stop()
    assert future.result == {"step": 1}  # the job did not wait for the sampling to end
    assert "the worker failed" in caplog.text


def test_requests_sent_together_join_before_the_next_step(scheduler):
    """Decoding goes on when all that has arrived is in, not with one request more a step."""
    joined, seen, begin = [], [], threading.Event()

    def advance() -> bool:
        seen.append(len(joined))
        return len(seen) < 3

    def hold() -> None:
        begin.wait(10)
        scheduler.advance_sampling = advance

    scheduler.call(hold)
    for number in range(16):
        scheduler.call(lambda number=number: joined.append(number))
    begin.set()
    while len(seen) < 3:
        time.sleep(0.005)
    assert joined == list(range(16))
    assert seen == [16, 16, 16]


def test_a_failing_action_does_not_stop_the_worker(scheduler, caplog):
    scheduler.call(lambda: 1 // 0)
    assert outcome(send(scheduler, 1)) == {"number": 1}
    assert "the worker failed" in caplog.text
