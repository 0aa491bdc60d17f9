"""The loop of the trainers: what is saved when, what an interrupt does, what others see of it."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from cookbook import loop
from cookbook.loop import Progress, Stopped, latest_run, run_steps
from cookbook.runlog import RunLog, read_checkpoints, read_metrics


class Saved:
    """The future of a save."""

    def __init__(self, path: str) -> None:
        self.path = path

    def result(self) -> "Saved":
        return self


class Client:
    """A training client that only saves, and may be interrupted meanwhile."""

    interrupted_at = ""

    def save_state(self, name: str, ttl_seconds: int | None = None) -> Saved:
        if name == self.interrupted_at:
            signal.raise_signal(signal.SIGINT)
        return Saved(f"tinker://run/weights/{name}")

    def save_weights_for_sampler(self, name: str) -> Saved:
        return Saved(f"tinker://run/sampler_weights/{name}")


def run(folder: Path, take_step: Any = lambda step: {"x": step}, **changed: Any) -> list[int]:
    """Run five steps in `folder`, saved every second one; return the steps that were reported."""
    seen: list[int] = []
    options: dict[str, Any] = {"client": Client(), "first_step": 0, "on_step": seen_by(seen)}
    options |= {"evaluate_end": lambda: {"test/x": 1}, "n_steps": 5, "save_every": 2}
    with RunLog.open(str(folder), {}, name="run", if_exists="resume") as log:
        run_steps(take_step, log=log, **(options | changed))
    return seen


def seen_by(seen: list[int]) -> loop.OnStep:
    return lambda metrics: seen.append(metrics["step"])


def test_every_step_is_told_and_the_last_checkpoint_is_final(tmp_path: Path) -> None:
    assert run(tmp_path) == [0, 1, 2, 3, 4, 5]
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1, 2, 3, 4, 5]
    saved = [(line["step"], line.get("final")) for line in read_checkpoints(tmp_path)]
    assert saved == [(2, None), (4, None), (5, True)]


def test_an_interrupt_while_saving_stops_after_the_next_step_and_saves_it(tmp_path: Path) -> None:
    client = Client()
    client.interrupted_at = "000002"
    with pytest.raises(Stopped, match="after step 3 of 5, which is saved"):
        run(tmp_path, client=client)
    assert [line["step"] for line in read_checkpoints(tmp_path)] == [2, 3]


def test_an_interrupt_in_the_last_step_lets_the_run_end(tmp_path: Path) -> None:
    def take_step(step: int) -> dict[str, Any]:
        if step == 4:
            signal.raise_signal(signal.SIGINT)
        return {}

    run(tmp_path, take_step)
    assert read_checkpoints(tmp_path)[-1]["final"]


def test_an_evaluation_that_fails_at_the_end_loses_no_step(tmp_path: Path) -> None:
    def fails() -> dict[str, Any]:
        raise ValueError("nothing could be played")

    with pytest.raises(ValueError, match="nothing could be played"):
        run(tmp_path, evaluate_end=fails, save_every=0)
    saved = [(line["step"], line.get("final")) for line in read_checkpoints(tmp_path)]
    assert saved == [(5, None)]


def test_a_notebook_shows_only_how_to_go_on() -> None:
    assert Stopped("Interrupted.")._render_traceback_() == ["Interrupted."]
    assert issubclass(Stopped, KeyboardInterrupt)  # whoever expects an interrupt gets one


@pytest.mark.parametrize(
    ("error", "ending"), [(None, "finished"), (ValueError, "failed"), (signal.SIGINT, "stopped")]
)
def test_others_see_how_far_it_is_and_how_it_ended(tmp_path: Path, error: Any, ending: str) -> None:
    seen = []

    def take_step(step: int) -> dict[str, Any]:
        progress = latest_run()
        assert progress
        seen.append((progress.done, progress.n_steps, progress.ending))
        if step == 3 and error is ValueError:
            raise ValueError
        if step == 3 and error:
            signal.raise_signal(error)
        return {}

    try:
        run(tmp_path, take_step, first_step=2)
    except (Stopped, ValueError):
        assert ending != "finished"
    progress = latest_run()
    assert progress
    assert progress.log_path == tmp_path
    assert seen[:2] == [(2, 5, ""), (3, 5, "")]
    assert (progress.ending, progress.done) == (
        ending,
        {"finished": 5, "failed": 3, "stopped": 4}[ending],
    )
    assert progress.seconds == progress.seconds  # stands still


def test_time_left_is_the_mean_step_times_the_steps_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = Progress(
        log_path=Path(), n_steps=10, first_step=4, done=4, began_s=now, changed_s=now
    )
    now = 106.0
    assert progress.seconds_left is None
    progress._change(6)  # two steps of 3 s each, four are left
    assert progress.seconds_left == 12
    now = 108.0  # the next one has had 2 s
    assert (progress.seconds, progress.seconds_left) == (8, 10)
    now = 130.0
    assert progress.seconds_left == 0
