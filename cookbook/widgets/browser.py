"""A browser of stored rollouts: filtered by step, problem and reward, tokens in colour."""

import os
from collections.abc import Sequence
from html import escape
from typing import Any

from cookbook.analysis.rollouts import Record, read_rollouts
from cookbook.analysis.wording import number
from cookbook.errors import DataError
from cookbook.frontend import draws_widgets
from cookbook.widgets.episodes import (
    ADVANTAGE,
    LEGENDS,
    LOGPROB,
    Filter,
    extremes,
    natural_colour,
    step_name,
    view_episode,
)
from cookbook.widgets.shown import show_static, show_widget

_ALL = "all"


def browse_rollouts(log_path: str | os.PathLike[str], tokenizer: Any, n_static: int = 4) -> None:
    """Show what a run's model said, an episode at a time, to filter by step, problem and reward.

    Tokens are coloured by the episode's advantage or by their log-probability. Without a page that
    can answer: the best and the worst episodes of the last step, folded.

    Args:
        log_path: the run's folder.
        tokenizer: of the model.
        n_static: episodes of the static form.
    Raises:
        DataError: the folder holds no played episodes.
    """
    records = [record for record in read_rollouts(log_path) if "failure" not in record]
    if not records:
        raise DataError(
            f"{log_path} holds no rollouts. Give the log path of a run of reinforcement learning "
            "that keeps them (keep_groups above 0)."
        )
    markup, text = _static(records, tokenizer, n_static)
    if draws_widgets():
        show_widget(RolloutBrowser(records, tokenizer).widget, markup, text)
    else:
        show_static(markup, text)


def _static(records: Sequence[Record], tokenizer: Any, n: int) -> tuple[str, str]:
    """Return HTML and text of the episodes at both ends of the last step's rewards."""
    chosen = extremes(records, n)
    colour = natural_colour(chosen[0])
    told = (
        f"{len(records)} episodes are stored. Here are {len(chosen)} of the last step, from the "
        f"most reward to the least. {LEGENDS[colour]}"
    )
    views = [view_episode(record, tokenizer, colour) for record in chosen]
    folded = [
        f"<details><summary>{escape(view.heading)}</summary>{view.markup()}</details>"
        for view in views
    ]
    return f"<div>{told}{''.join(folded)}</div>", "\n\n".join([told, *map(str, views)])


class RolloutBrowser:
    """The controls, and the episode they lead to: `widget` is what is shown."""

    def __init__(self, records: Sequence[Record], tokenizer: Any) -> None:
        import ipywidgets

        w: Any = ipywidgets

        self._records, self._tokenizer = records, tokenizer
        self._fitting: list[Record] = []
        first = extremes(records, 1)[0]
        rewards = sorted({float(record["reward"]) for record in records})
        self._moments = {step_name(record): (record["split"], record["step"]) for record in records}
        self.moment = w.Dropdown(options=[_ALL, *self._moments], value=step_name(first))
        self.problem = w.Dropdown(options=[_ALL, *sorted({str(r["problem"]) for r in records})])
        self.reward = w.SelectionRangeSlider(
            options=[(number(value), value) for value in rewards], index=(0, len(rewards) - 1)
        )
        self.colour = w.ToggleButtons(options=[ADVANTAGE, LOGPROB], value=natural_colour(first))
        self.place = w.IntSlider(value=1, min=1, max=1)
        self.previous = w.Button(description="◀ previous")
        self.next = w.Button(description="next ▶")
        self.shown = w.HTML()
        for control in (self.moment, self.problem, self.reward):
            control.observe(self._choose, "value")
        for control in (self.place, self.colour):
            control.observe(self._draw, "value")
        self.previous.on_click(lambda _: self._move(-1))
        self.next.on_click(lambda _: self._move(1))
        rows = {
            "step": [self.moment],
            "problem": [self.problem],
            "reward": [self.reward],
            "colour": [self.colour],
            "episode": [self.place, self.previous, self.next],
        }
        labelled = [
            w.HBox([w.Label(name, layout={"width": "5em"}), *row]) for name, row in rows.items()
        ]
        self.widget = w.VBox([*labelled, self.shown])
        self._choose()

    def _choose(self, *_: Any) -> None:
        """Filter anew and show the first episode that fits."""
        split, step = self._moments.get(self.moment.value, (None, None))
        problem = None if self.problem.value == _ALL else self.problem.value
        low, high = self.reward.value
        wanted = Filter(split=split, step=step, problem=problem, lowest=low, highest=high)
        self._fitting = [record for record in self._records if wanted.fits(record)]
        self.place.max, self.place.value = max(1, len(self._fitting)), 1
        self._draw()

    def _draw(self, *_: Any) -> None:
        if not self._fitting:
            self.shown.value = "No episode fits."
            return
        record = self._fitting[self.place.value - 1]
        view = view_episode(record, self._tokenizer, self.colour.value)
        told = f"{self.place.value} of {len(self._fitting)}: {view.heading}"
        legend = f"<small>{LEGENDS[self.colour.value]}</small>"
        self.shown.value = f"<b>{escape(told)}</b><div>{legend}</div>{view.markup()}"

    def _move(self, by: int) -> None:
        self.place.value = min(self.place.max, max(1, self.place.value + by))
