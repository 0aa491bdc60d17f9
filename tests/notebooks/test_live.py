"""The live display stores one final state, whatever happens while it runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from cookbook.notebooks import Live
from cookbook.notebooks.publish import execute

SETUP = """import matplotlib.pyplot as plt
from cookbook.notebooks import Live
drawn = []
def draw():
    drawn.append(1)
    figure, axes = plt.subplots(figsize=(2, 1))
    axes.plot([0, len(drawn)])
    return figure"""
FIGURES = """with Live(alt="A line.", caption="It rises.") as live:
    for _ in range(50):
        live.update(draw)
    live.alt = "A line to the end."
print(len(drawn), plt.get_fignums())"""
TABLE = """with Live(alt="", caption="Done.") as live:
    for step in range(50):
        live.update(f"<b>step</b> {step}")"""
INTERRUPTED = """with Live(alt="", caption="Stopped early.") as live:
    live.update("<b>one</b>")
    live.update("<b>two</b>")
    raise KeyboardInterrupt"""


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The cells above, executed in one kernel."""
    sources = [SETUP, FIGURES, TABLE, INTERRUPTED]
    notebook: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    notebook.cells[3].metadata["tags"] = ["raises-exception"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        execute(notebook, tmp_path_factory.mktemp("live"))
    return notebook.cells


def test_one_picture_with_its_last_alt_text_and_caption(cells: list[Any]) -> None:
    picture, caption, _ = cells[1].outputs
    assert picture.metadata["image/png"] == {"alt": "A line to the end."}
    assert picture.data["text/plain"] == "[figure: A line to the end.]"
    assert caption.data["text/markdown"] == "It rises."


def test_drawn_only_when_shown_and_closed(cells: list[Any]) -> None:
    drawn, figures = cells[1].outputs[2].text.split(" ", 1)
    assert 2 <= int(drawn) < 20
    assert figures.strip() == "[]"


def test_table_keeps_its_last_state_only(cells: list[Any]) -> None:
    table, caption = cells[2].outputs
    assert table.data == {"text/html": "<b>step</b> 49", "text/plain": "step 49"}
    assert caption.data["text/plain"] == "Done."


def test_last_state_and_caption_survive_an_interrupt(cells: list[Any]) -> None:
    table, caption, error = cells[3].outputs
    assert table.data["text/plain"] == "two"
    assert caption.data["text/markdown"] == "Stopped early."
    assert error.ename == "KeyboardInterrupt"


def test_outside_a_notebook_only_the_caption_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    drawn: list[int] = []
    draw: Callable[[], None] = lambda: drawn.append(1)  # noqa: E731
    with Live(alt="", caption="It rises.") as live:
        live.update(draw)
    assert capsys.readouterr().out == "It rises.\n"
    assert drawn == []
