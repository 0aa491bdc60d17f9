"""The learning path holds every notebook, in an order in which each can be read."""

import json
from pathlib import Path

import pytest

from cookbook.errors import DataError
from cookbook.notebooks.path import Stop, learning_path, path_figure

ROOT = Path(__file__).parents[2]
TABLE = """# Path

## Begin

| order | notebook | you learn | read first |
|---|---|---|---|
| 1 | [one](one.ipynb) | to begin | – |

## Go on

| order | notebook | you learn | read first |
|---|---|---|---|
| 2 | [two](two.ipynb) | more | one |
| 3 | [three](three.ipynb) | `all` of it | one, two |
"""


def folder_with(tmp_path: Path, table: str, **seconds: float) -> Path:
    (tmp_path / "README.md").write_text(table)
    for name, value in seconds.items():
        stamp = {"metadata": {"cookbook": {"seconds": value}}}
        (tmp_path / f"{name}.ipynb").write_text(json.dumps(stamp))
    return tmp_path


def test_rows_with_section_prerequisites_and_measured_time(tmp_path):
    stops = learning_path(folder_with(tmp_path, TABLE, one=50.6, two=200))
    assert stops == [
        Stop("one", "Begin", "to begin", (), 50.6),
        Stop("two", "Go on", "more", ("one",), 200),
        Stop("three", "Go on", "`all` of it", ("one", "two"), None),
    ]


def test_a_notebook_cannot_build_on_a_later_one(tmp_path):
    with pytest.raises(DataError, match="one builds on three, which is not above it"):
        learning_path(folder_with(tmp_path, TABLE.replace("| –", "| three")))


def test_without_the_repository_the_error_says_so(tmp_path):
    with pytest.raises(DataError, match="comes with the repository"):
        learning_path(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(None, "?"), (2, "¼"), (40, "¾"), (50, "¾"), (60, "1"), (118, "2"), (322, "5¼")],
)
def test_minutes_in_quarters(seconds, told):
    assert Stop("x", "", "", (), seconds).minutes == told


def test_the_figure_names_every_notebook_with_its_minutes(tmp_path):
    figure = path_figure(learning_path(folder_with(tmp_path, TABLE, one=60, two=120)))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["one  1 min", "two  2 min", "three  ? min"]
    assert figure.axes[0].get_title(loc="left") == "3 notebooks, 3 minutes of computing in all"


def test_the_committed_path_holds_every_notebook():
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    stops = learning_path()
    assert len({stop.name for stop in stops}) == len(stops)
    assert {stop.name for stop in stops} == notebooks
