"""Every committed notebook passes the static check, and the check sees each kind of fault."""

from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest

from cookbook.notebooks.__main__ import main
from cookbook.notebooks.faults import faults
from cookbook.notebooks.sources import source_faults

ROOT = Path(__file__).parents[2]
BAD = Path(__file__).parent / "bad"


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_committed_notebook_has_no_faults(path: Path) -> None:
    found = faults(path)
    told = "\n  ".join(found)
    assert not found, f"{path.name} may not be committed as it is; `make notebooks`?\n  {told}"


def test_good_notebook_has_no_faults() -> None:
    assert faults(BAD / "good.ipynb") == []


def test_papermill_explains_the_parameters() -> None:
    told = papermill.inspect_notebook(BAD / "good.ipynb")
    assert [(p["inferred_type_name"], p["help"]) for p in told.values()] == [
        ("float", "added in each step, 0 or more"),
        ("int", "steps to take"),
    ]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("out_of_order", "execution counts are 1, 2, 5, 4, 5, 6, 7, not 1 to 7"),
        ("frozen_bar", "cell 5: stores a frozen progress bar"),
        ("widget_metadata", "widget state in the notebook's metadata"),
        ("too_large", "allowed are 100,000"),
        ("missing_alt", "cell 5: a picture without alternative text"),
        ("changed_cell", "the code cells have changed since the outputs were made"),
        ("home_path", "cell 4: tells a home path ('/home/')"),
    ],
)
def test_bad_notebook_has_exactly_its_fault(name: str, told: str) -> None:
    found = faults(BAD / f"{name}.ipynb")
    assert len(found) == 1
    assert told in found[0]


def test_no_bad_notebook_is_left_untested() -> None:
    assert len(list(BAD.glob("*.ipynb"))) == 8


def test_file_above_one_megabyte(good: Any, tmp_path: Path) -> None:
    good.cells[0].source += "\n<!-- " + "x" * 1_000_000 + " -->"
    path = tmp_path / "good.ipynb"
    nbformat.write(good, path)
    assert faults(path) == [
        f"the file has {path.stat().st_size:,} bytes, allowed are 1,000,000: show less"
    ]


def stored(notebook: Any, tmp_path: Path) -> list[str]:
    path = tmp_path / "good.ipynb"
    nbformat.write(notebook, path)
    return faults(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("key tml-abcdef123", "tells a key"),
        ("C:\\Users\\ana\\x", "a home path"),
        ("at /Users/ana/x", "a home path"),
        ("at /root/x", "a home path"),
        ("http://127.0.0.1:43117/api", "a local port"),
        ("a\rb", "frozen progress bar"),
        ("Step: 37%|###7      | 3/8", "frozen progress bar"),
    ],
)
def test_output_text_that_must_not_be_stored(
    text: str, told: str, good: Any, tmp_path: Path
) -> None:
    good.cells[3].outputs[0].text += text
    found = stored(good, tmp_path)
    assert len(found) == 1
    assert told in found[0]


def test_harmless_output_text_is_allowed(good: Any, tmp_path: Path) -> None:
    good.cells[3].outputs[
        0
    ].text += (
        "accuracy 0.9 | 100%| html-like /tmp/tinker-examples/run http://localhost:PORT tml-KEY"
    )
    assert stored(good, tmp_path) == []


def test_error_output_needs_its_tag(good: Any, tmp_path: Path) -> None:
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="x", traceback=["x"])
    good.cells[3].outputs.append(error)
    assert "stores an error" in stored(good, tmp_path)[0]
    good.cells[3].metadata["tags"] = ["raises-exception"]
    assert stored(good, tmp_path) == []


def test_widget_view(good: Any, tmp_path: Path) -> None:
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "w"}
    good.cells[3].outputs.append(nbformat.v4.new_output("display_data", data=view))
    assert "shows a widget" in stored(good, tmp_path)[0]


def test_picture_needs_a_caption_in_the_cell_or_after_it(good: Any, tmp_path: Path) -> None:
    good.cells[4].outputs.pop()
    found = stored(good, tmp_path)
    assert found == ["cell 5: a picture without a caption: follow it by a sentence on what is seen"]
    good.cells.insert(5, nbformat.v4.new_markdown_cell("The line rises."))
    assert stored(good, tmp_path) == []


def test_more_figures_than_allowed(good: Any, tmp_path: Path) -> None:
    good.cells[4].outputs = good.cells[4].outputs[:1] * 9 + good.cells[4].outputs[1:]
    assert stored(good, tmp_path) == ["9 figures, allowed are 8"]


def test_missing_stamp_and_measured_parts(good: Any, tmp_path: Path) -> None:
    del good.metadata["cookbook"]
    good.cells[0].source = "# Title\n\n≈ ? on ? CPU cores · ? GiB · executed ?"
    found = stored(good, tmp_path)
    assert "no stamp" in found[0]
    assert "the status line lacks measured parts" in found[1]


def test_claims_must_be_what_was_printed(good: Any, tmp_path: Path) -> None:
    good.cells[-1].outputs[0].text = '{"sum": 5.0}\n'
    assert "the stamp's claims are not" in stored(good, tmp_path)[0]


def test_prose_may_change_without_a_new_run(good: Any, tmp_path: Path) -> None:
    good.cells[5].source = "Another text."
    assert stored(good, tmp_path) == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("rank = 4  # rank", "write 'name: type = value"),
        ("rank: int", "write 'name: type = value"),
        ("rank: int | None = 4  # rank", "the annotation must be one of"),
        ("rank: int = 2 * 2  # rank", "the value must be a plain number"),
        ("rank: str = None  # rank", "the value must be a plain number"),
        ("rank: int = 4", "explain it by a comment"),
        ("rank: int = 4  # 4 = usual", "a second '='"),
        ("rank: int = (", "parameters cell: "),
    ],
)
def test_unfit_parameter(line: str, told: str, good: Any) -> None:
    good.cells[2].source += f"\n{line}"
    found = source_faults(good, "good")
    assert len(found) == 1
    assert told in found[0]


@pytest.mark.parametrize(
    "line", ["a: float = -1e-4  # nats", "b: str = ''  # path", "c: bool = True  # on"]
)
def test_fit_parameter(line: str, good: Any) -> None:
    good.cells[2].source += f"\n{line}"
    assert source_faults(good, "good") == []


def test_thirteen_parameters_are_too_many(good: Any) -> None:
    good.cells[2].source = "\n".join(f"p{i}: int = {i}  # count" for i in range(13))
    assert source_faults(good, "good") == ["13 parameters, allowed are 12"]


def test_tags_and_kernel(good: Any) -> None:
    good.cells[3].metadata["tags"] = ["parameters", "hidden"]
    good.metadata["kernelspec"]["name"] = "my-env"
    found = source_faults(good, "good")
    assert len(found) == 3
    assert "papermill needs ('python3', 'python')" in found[0]
    assert "cell 4: tag 'hidden' is none of parameters, claims" in found[1]
    assert found[2] == "2 cells are tagged 'parameters', there must be exactly one"


@pytest.mark.parametrize(
    ("stem", "source", "fault"),
    [
        ("good", "\n".join(["x = 1"] * 41), "41 lines in the longest code cell, allowed are 40"),
        ("good", "\n".join(["x = 1", ""] * 40), None),
        ("rl_loop", "word " * 1300, "words, allowed are 1250"),
        ("good", "word " * 1300, None),
        ("good", "```\n" + "word " * 3000 + "\n```", None),
    ],
)
def test_lengths(stem: str, source: str, fault: str | None, good: Any) -> None:
    cell = good.cells[5] if "word" in source else good.cells[3]
    cell.source = source
    found = source_faults(good, stem)
    assert len(found) == (fault is not None)
    assert fault is None or fault in found[0]


def test_minimal_loop_takes_half_of_the_cells(good: Any) -> None:
    new = nbformat.v4.new_markdown_cell
    good.cells += [new("Text.") for _ in range(28 - len(good.cells))]
    assert source_faults(good, "sl_loop") == ["28 cells, allowed are 27"]
    assert source_faults(good, "sl_basic") == []


def test_check_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", str(BAD / "good.ipynb")]) == 0
    assert main(["--check", str(BAD / "good.ipynb"), str(BAD / "home_path.ipynb")]) == 1
    assert "home_path.ipynb: cell 4: tells a home path" in capsys.readouterr().err
