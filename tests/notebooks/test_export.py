"""A notebook exported by plain `nbconvert --to html` says everything without scripts or network."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest

nbconvert = pytest.importorskip("nbconvert")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
LEAST_WIDTH = 300
"""Pixels of a picture that can be read."""


class Page(HTMLParser):
    """What a reader sees whose browser runs no script: text and pictures in their order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.pictures: list[str] = []
        self.elements: set[str] = set()
        self._hidden = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self._hidden += tag in ("script", "style", "head")
        if tag == "img":
            self.pictures.append(str(dict(attrs).get("src")))
            self.seen.append(f"[picture {len(self.pictures)}]")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style", "head")

    def handle_data(self, data: str) -> None:
        if not self._hidden and data.strip():
            self.seen.append(" ".join(data.split()))


def captions(notebook: Any) -> list[str]:
    """Return the first words that stand below each picture of the notebook, letters only."""
    found = []
    for number, cell in enumerate(notebook.cells):
        outputs = list(cell.get("outputs", []))
        for place, output in enumerate(outputs):
            if any(kind.startswith("image/") for kind in output.get("data", {})):
                below = [
                    o["data"].get("text/markdown", "") for o in outputs[place + 1 :] if "data" in o
                ]
                below += [c.source for c in notebook.cells[number + 1 : number + 2]]
                found.append(letters(next(filter(None, below), ""))[:40])
    return found


def letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_export_is_whole_without_scripts(path: Path) -> None:
    notebook: Any = nbformat.read(path, as_version=4)
    html, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    page = Page(html)
    text = " ".join(page.seen)

    assert all(source.startswith("data:image/png;base64,") for source in page.pictures)
    for source in page.pictures:
        content = base64.b64decode(source.split(",", 1)[1])
        assert int.from_bytes(content[16:20], "big") >= LEAST_WIDTH
    below = [letters(part) for part in re.split(r"\[picture \d+\]", text)[1:]]
    wanted = captions(notebook)
    assert len(below) == len(wanted)
    for caption, seen in zip(wanted, below, strict=True):
        assert caption
        assert caption in seen

    assert "application/vnd.jupyter.widget" not in html
    assert not {"canvas", "iframe", "object", "embed"} & page.elements
    assert not re.search(r"\b(Loading widget|Error displaying widget|\w+\(children=)", text)
    plain = letters(text)
    for cell in notebook.cells:  # every heading, fold and code line that a reader should find
        if cell.cell_type == "markdown":
            told = re.findall(r"^#+ (.+)$|<summary>(.+?)</summary>", cell.source, re.MULTILINE)
            assert all(letters("".join(pair)) in plain for pair in told)
