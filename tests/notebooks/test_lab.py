"""In JupyterLab: `sl_basic` by "Run All Cells": its live view moves; stopped, it goes on."""

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from cookbook.notebooks.stamp import code_cells, tagged
from cookbook.runlog import read_checkpoints, read_metrics
from tests.notebooks.lab import (
    CELL_S,
    ROOT,
    LabNotebook,
    browser_page,
    jupyter_lab,
    missing,
    wait_until,
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]
N_STEPS = 8
SETTINGS = {"max_steps": f"int = {N_STEPS}", "n_test": "int = 8"}
ASKED = "What is <rain> made of?"
LIVE, LAST = "supervised.train(config, service", "packages = ["


def write_notebook(folder: Path) -> Path:
    """Write `sl_basic` with fewer steps, cleared, into a folder as a reader has it."""
    notebook: Any = nbformat.read(ROOT / "notebooks" / "sl_basic.ipynb", as_version=4)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    (cell,) = tagged(notebook, "parameters")
    settings = {**SETTINGS, "log_path": f'str = "{folder / "log"}"'}
    for name, value in settings.items():
        cell.source, found = re.subn(rf"(?m)^{name}: .*?(?=  #)", f"{name}: {value}", cell.source)
        assert found == 1
    path = folder / "notebooks" / "sl_basic.ipynb"
    path.parent.mkdir()
    nbformat.write(notebook, path)
    return path


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The run, once; what was seen on the way. Pictures of it lie in the temporary folder."""
    folder = tmp_path_factory.mktemp("lab")
    path = write_notebook(folder)
    told: dict[str, Any] = {"folder": folder, "path": path}
    with jupyter_lab(folder) as address, browser_page() as page:
        notebook = LabNotebook(page, address, "notebooks/sl_basic.ipynb")
        page.screenshot(path=folder / "opened.png")
        notebook.menu("Run", "Run All Cells")
        live = notebook.cell_with(LIVE)
        stop = live.get_by_role("button", name="Stop and save")
        stop.wait_for(timeout=1000 * CELL_S)
        outputs = live.locator(".jp-OutputArea")
        told["texts"] = []
        wait_until(lambda: watched(told["texts"], outputs, "step 3 of"), CELL_S, "step 3")
        stop.scroll_into_view_if_needed()
        page.screenshot(path=folder / "training.png")
        stop.click()
        told["pressed"] = live.get_by_role("button").inner_text()
        live.locator(".jp-RenderedText", has_text="Interrupted after step").wait_for()
        live.scroll_into_view_if_needed()
        page.screenshot(path=folder / "stopped.png")
        told["stopped"] = outputs.first.inner_text()
        told["metrics"] = read_metrics(folder / "log")
        told["checkpoints"] = read_checkpoints(folder / "log")

        live.locator(".jp-InputArea").click()
        notebook.menu("Run", "Run Selected Cell and All Below")
        notebook.wait_for_cell(LAST)
        live.scroll_into_view_if_needed()
        page.screenshot(path=folder / "finished.png")
        talk = notebook.cell_with("widgets.chat(")
        talk.get_by_placeholder("Your message").fill(ASKED)
        talk.get_by_placeholder("Your message").press("Enter")
        told["chat"] = []
        wait_until(lambda: watched(told["chat"], talk.locator(".jp-OutputArea"), ASKED), 60, "chat")
        talk.get_by_placeholder("Your message").scroll_into_view_if_needed()
        page.screenshot(path=folder / "chat.png")
        notebook.menu("File", "Save Notebook")
        wait_until(lambda: bool(last_outputs(path)), 30, "saved")
    told["saved"] = nbformat.read(path, as_version=4)
    return told


def watched(texts: list[str], outputs: Any, wanted: str) -> bool:
    """Note what the outputs say now, and return whether that holds the wanted text."""
    text = outputs.first.inner_text()
    if text not in texts:
        texts.append(text)
    return wanted in text


def last_outputs(path: Path) -> list[Any]:
    return code_cells(nbformat.read(path, as_version=4))[-1].outputs


def test_the_live_view_moves_while_it_trains(seen: dict[str, Any]) -> None:
    text = "\n".join(seen["texts"])
    assert {"1", "2", "3"} <= set(re.findall(rf"step (\d+) of {N_STEPS}", text))
    assert re.search(r"about .* left", text)
    seconds = re.findall(r"of \d+ · (\d+) s", text)
    assert len(set(seconds)) > 3  # it also moves within a step


def test_stop_saves_the_step_in_flight_and_says_how_to_go_on(seen: dict[str, Any]) -> None:
    assert seen["pressed"] == "Stopping after this step"
    done = len(seen["metrics"])
    assert 3 <= done < N_STEPS
    assert seen["checkpoints"][-1]["step"] == done
    assert f"Stopped: {done} of {N_STEPS} steps" in seen["stopped"]
    assert "if_exists='resume'" in seen["stopped"]
    assert "Traceback" not in seen["stopped"]


def test_resumed_it_finishes_as_one_run(seen: dict[str, Any]) -> None:
    log = seen["folder"] / "log"
    assert [line["step"] for line in read_metrics(log)] == [*range(N_STEPS + 1)]
    assert read_metrics(log)[: len(seen["metrics"])] == seen["metrics"]
    assert read_checkpoints(log)[-1]["final"]
    assert list((seen["folder"] / "results").glob("*/training_analysis.png"))


def test_the_chat_asks_both_models(seen: dict[str, Any]) -> None:
    answered = seen["chat"][-1].partition("Send")[0]
    assert answered.count(ASKED) == 2
    before, _, after = answered.partition(ASKED)[2].partition(ASKED)
    assert before.strip().startswith("assistant")
    assert after.strip().startswith("assistant")


def test_what_is_saved_is_static_and_without_errors(seen: dict[str, Any]) -> None:
    cells = code_cells(seen["saved"])
    assert all(cell.execution_count for cell in cells)
    assert not [o for cell in cells for o in cell.outputs if o.output_type == "error"]
    (live,) = [cell for cell in cells if LIVE in cell.source]
    text = json.dumps(live.outputs)
    assert "button" not in text
    assert "<progress" not in text
    assert f"Finished: {N_STEPS} of {N_STEPS} steps" in text
    assert any("image/png" in output.get("data", {}) for output in live.outputs)
    (talk,) = [cell for cell in cells if "widgets.chat(" in cell.source]
    assert "VBox" not in json.dumps(talk.outputs)
    assert "[before]" in talk.outputs[-1].data["text/plain"]
