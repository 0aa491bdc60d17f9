"""Killed, interrupted, resumed: the same run."""

import random
import signal
from dataclasses import replace

import pytest

from cookbook.errors import ConfigError
from cookbook.loop import Stopped
from cookbook.rl import Task
from cookbook.runlog import read_checkpoints, read_metrics
from tests.fake_training import Killed
from tests.rl.runs import N_STEPS, outcome, run


@pytest.fixture
def straight(config, task, server, tmp_path):
    """What an uninterrupted run leaves, and how many calls it made."""
    result = run(replace(config, log_path=str(tmp_path / "straight")), task, server)
    calls, server.n_calls = server.n_calls, 0
    return outcome(result, server), calls


def test_killed_at_any_call_and_resumed_is_the_same_run(config, task, server, straight, tmp_path):
    expected, calls = straight
    assert calls > 40
    for call in range(1, calls + 1):
        killed = replace(config, log_path=str(tmp_path / f"killed-{call}"))
        server.n_calls, server.die_at = 0, call
        with pytest.raises(Killed):
            run(killed, task, server)
        server.die_at = None
        assert outcome(run(killed, task, server), server) == expected, f"killed at {call}"


def test_killed_again_and_again(config, task, server, straight):
    expected, calls = straight
    rng = random.Random(0)
    for _ in range(8):
        server.n_calls, server.die_at = 0, rng.randrange(1, calls // 3)
        with pytest.raises(Killed):
            run(config, task, server)
    server.die_at = None
    assert outcome(run(config, task, server), server) == expected


@pytest.mark.parametrize("call", [6, 14, 22])
def test_interrupt_saves_the_step_in_flight(config, task, server, straight, call):
    expected, _ = straight

    def interrupt(count):
        if count == call:
            signal.raise_signal(signal.SIGINT)

    server.on_call = interrupt
    with pytest.raises(Stopped) as stopped:
        run(config, task, server)
    done = len(read_metrics(config.log_path))
    assert read_checkpoints(config.log_path)[-1]["step"] == done
    told = str(stopped.value)
    assert f"Interrupted after step {done} of {N_STEPS}, which is saved" in told
    assert f"log_path={config.log_path!r} and if_exists='resume'" in told
    assert outcome(run(config, task, server), server) == expected


def test_a_finished_run_is_not_trained_again(config, task, server, capsys):
    first = run(config, task, server)
    calls = server.n_calls
    assert run(config, task, server) == first
    assert server.n_calls == calls
    assert "finished already" in capsys.readouterr().out


def test_resuming_with_another_task_is_refused(config, task, server):
    server.die_at = 30
    with pytest.raises(Killed):
        run(config, task, server)
    server.die_at = None
    with pytest.raises(ConfigError, match=r"other settings:\n  task: .*'guess'.*there"):
        run(config, Task("guess", task.train[:-1], task.test), server)
    with pytest.raises(ConfigError, match="group_size: 4 there, 5 now"):
        run(replace(config, group_size=5), task, server)
    run(config, task, server)
