"""The static check of a committed notebook: can a reader trust and read its outputs?

Nothing is executed; a notebook takes milliseconds. The rules on the source (cells, tags,
parameters, lengths) are in ``sources``; here are those on what was stored by executing it.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

from cookbook.notebooks import stamp
from cookbook.notebooks.normalise import PICTURES
from cookbook.notebooks.sources import budget_of, source_faults
from cookbook.notebooks.status import is_filled, status_line

MAX_FILE_BYTES = 1_000_000
MAX_PICTURE_BYTES = 100_000
EXECUTE = "run `make notebooks`"
WIDGET = "application/vnd.jupyter.widget-view+json"
# A percentage below 100 before a bar's left edge, as progress bars print it.
_UNFINISHED_BAR = re.compile(r"(?<!\d)\d{1,2}%\|")
_FINISHED_BAR = re.compile(r"100%\|")
_PRIVATE = {
    "a home path": re.compile(r"/home/|/Users/|/root/|[A-Z]:\\{1,2}Users"),
    "a key": re.compile(r"(?<![A-Za-z])tml-(?!KEY)[\w-]{4,}"),
    "a local port": re.compile(r"(127\.0\.0\.1|localhost|\[::1\]):\d"),
}


def faults(path: Path) -> list[str]:
    """Return what is wrong with the notebook file, a sentence each; empty if it may be committed.

    Args:
        path: a notebook file; its name decides the budget (``*_loop`` takes half).
    """
    size = path.stat().st_size
    notebook: Any = nbformat.read(path, as_version=4)
    found = [*source_faults(notebook, path.stem), *output_faults(notebook)]
    figures, limit = _figures(notebook), budget_of(path.stem).figures
    if figures > limit:
        found.append(f"{figures} figures, allowed are {limit}")
    if size > MAX_FILE_BYTES:
        found.append(f"the file has {size:,} bytes, allowed are {MAX_FILE_BYTES:,}: show less")
    return found


def output_faults(notebook: Any) -> list[str]:
    """Return what is wrong with what executing the notebook stored in it."""
    found = [*_stamp_faults(notebook), *_count_faults(notebook)]
    if "widgets" in notebook.metadata:
        found.append(f"widget state in the notebook's metadata: {EXECUTE}")
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code":
            following = notebook.cells[number] if number < len(notebook.cells) else None
            told = (*_text_faults(cell), *_picture_faults(cell, following))
            found += [f"cell {number}: {fault}" for fault in told]
    return found


def _stamp_faults(notebook: Any) -> Iterator[str]:
    """The outputs come from this code, executed by the one command."""
    told = notebook.metadata.get(stamp.KEY)
    if told is None:
        yield f"no stamp, so the outputs may come from other code: {EXECUTE}"
    elif told.get("cells_hash") != stamp.cells_hash(notebook):
        yield f"the code cells have changed since the outputs were made: {EXECUTE}"
    elif told.get("claims") is None or told["claims"] != stamp.claims(notebook):
        yield (
            "the stamp's claims are not the last line that the claims cell printed; that line "
            f"must be one JSON object: {EXECUTE}"
        )
    line = status_line(notebook)
    if line is not None and not is_filled(line):
        yield f"the status line lacks measured parts ({line!r}): {EXECUTE}"


def _count_faults(notebook: Any) -> Iterator[str]:
    counts = [cell.execution_count for cell in stamp.code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        shown = ", ".join(map(str, counts))
        yield f"execution counts are {shown}, not 1 to {len(counts)} in order: {EXECUTE}"


def _text_faults(cell: Any) -> Iterator[str]:
    """Errors, widgets, progress bars and private text among one cell's outputs."""
    kinds = [output.output_type for output in cell.outputs]
    if "error" in kinds and "raises-exception" not in stamp.tags(cell):
        yield f"stores an error without the tag 'raises-exception': mend the cell and {EXECUTE}"
    if any(WIDGET in output.get("data", {}) for output in cell.outputs):
        yield "shows a widget, which a static page cannot draw: use cookbook.notebooks.Live"
    text = "\n".join(_texts(cell.outputs))
    if "\r" in text or _UNFINISHED_BAR.search(text) or len(_FINISHED_BAR.findall(text)) > 2:
        yield "stores a frozen progress bar: use cookbook.notebooks.Live"
    for kind, pattern in _PRIVATE.items():
        if seen := pattern.search(text):
            yield f"tells {kind} ({seen.group()!r}) in an output: do not print it, or {EXECUTE}"


def _picture_faults(cell: Any, following: Any) -> Iterator[str]:
    """Size, alternative text and caption of each picture of one cell."""
    for position, output in enumerate(cell.outputs):
        for kind in [mime for mime in output.get("data", {}) if mime.startswith("image/")]:
            size = _picture_bytes(kind, output["data"][kind])
            if size > MAX_PICTURE_BYTES:
                yield f"a picture of {size:,} bytes, allowed are {MAX_PICTURE_BYTES:,}"
            if not output.metadata.get(kind, {}).get("alt", "").strip():
                yield "a picture without alternative text: show it with cookbook.analysis.show"
            if not (_has_text(cell.outputs[position + 1 :]) or _starts_with_prose(following)):
                yield "a picture without a caption: follow it by a sentence on what is seen"


def _figures(notebook: Any) -> int:
    return sum(
        any(mime.startswith("image/") for mime in output.get("data", {}))
        for cell in stamp.code_cells(notebook)
        for output in cell.outputs
    )


def _picture_bytes(kind: str, data: Any) -> int:
    text = data if isinstance(data, str) else "".join(data)
    return len(text) * 3 // 4 if kind in PICTURES else len(text.encode())


def _has_text(outputs: list[Any]) -> bool:
    """Say whether the first of these outputs that is no picture has words for a reader."""
    for output in outputs:
        if not any(mime.startswith("image/") for mime in output.get("data", {})):
            return any(text.strip() for text in _texts([output]))
    return False


def _starts_with_prose(cell: Any) -> bool:
    if cell is None or cell.cell_type != "markdown":
        return False
    return bool(re.match(r"[^\W\d_]|[*_]+\w", cell.source.lstrip()))


def _texts(outputs: list[Any]) -> Iterator[str]:
    """Yield every text of the outputs, alternative texts included, pictures left out."""
    for output in outputs:
        yield output.get("text", "")
        yield from output.get("traceback", [])
        for mime, value in output.get("data", {}).items():
            if mime not in PICTURES:
                yield value if isinstance(value, str) else json.dumps(value)
        yield json.dumps(output.get("metadata", {}))
