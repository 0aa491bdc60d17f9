"""Execute notebooks and store what they printed: the only way outputs get into the repository."""

import datetime
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbclient import NotebookClient

from cookbook.notebooks import stamp
from cookbook.notebooks.faults import faults
from cookbook.notebooks.normalise import normalise
from cookbook.notebooks.sources import source_faults
from cookbook.notebooks.status import fill_status

CELL_TIMEOUT_S = 900
MEMORY_INTERVAL_S = 0.2
# Committed outputs come from the embedded engine, whatever server the author happens to use.
_DROPPED_VARIABLES = ("TINKER_BASE_URL", "TINKER_API_KEY", "PYTHONSTARTUP", "JPY_SESSION_NAME")


@dataclass
class Peak:
    """The most memory seen in use, in bytes."""

    size_bytes: int = 0


def publish(path: Path) -> list[str]:
    """Execute the notebook at its default parameters and write it back, stamped.

    The file is replaced at once and only after every cell has run, the claims included; the kernel
    is a clean one in the notebook's own folder.

    Returns:
        The faults that are left, if any: of the source (then nothing was run), or of the outputs
        (then they are stored to be looked at, but must not be committed).
    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; the file is as it was.
    """
    notebook: Any = nbformat.read(path, as_version=4)
    if found := source_faults(notebook, path.stem):
        return found
    started = time.monotonic()
    with peak_memory() as peak:
        execute(notebook, path.parent)
    seconds = time.monotonic() - started
    normalise(notebook)
    date = datetime.date.today().isoformat()
    fill_status(notebook, seconds, _cores(), peak.size_bytes, date)
    notebook.metadata[stamp.KEY] = stamp.make_stamp(notebook, seconds, date)
    write(notebook, path)
    return faults(path)


def execute(notebook: Any, folder: Path) -> None:
    """Run all cells in a clean kernel that works in ``folder``; outputs go into ``notebook``."""
    for cell in stamp.code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    with tempfile.TemporaryDirectory() as profile:
        kept = {k: v for k, v in os.environ.items() if k not in _DROPPED_VARIABLES}
        client = NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT_S,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
        )
        client.execute(env={**kept, "IPYTHONDIR": profile, "TQDM_DISABLE": "1"})


def write(notebook: Any, path: Path) -> None:
    """Replace the file by the notebook at once: a reader sees the old or the new, never a part."""
    nbformat.validate(notebook)
    aside = path.with_name(f".{path.name}.new")
    nbformat.write(notebook, aside)
    os.replace(aside, path)


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Watch the processes that begin below this one, the kernel and its own, at short intervals."""
    peak, stop = Peak(), threading.Event()
    others = {child.pid for child in psutil.Process().children(recursive=True)}

    def watch() -> None:
        while not stop.wait(MEMORY_INTERVAL_S):
            peak.size_bytes = max(peak.size_bytes, _children_bytes(others))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


def _children_bytes(others: set[int]) -> int:
    """Return the resident memory of all processes below this one but those in ``others``."""
    total = 0
    for child in psutil.Process().children(recursive=True):
        try:
            total += 0 if child.pid in others else child.memory_info().rss
        except psutil.Error:  # it ended meanwhile
            continue
    return total


def _cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
