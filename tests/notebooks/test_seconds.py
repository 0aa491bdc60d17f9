"""After the notebooks a table tells which took longer or shorter than they promise."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[2]


def run(folder: Path, seconds: dict[str, float], *options: str) -> subprocess.CompletedProcess[str]:
    """Run notebooks that state these seconds, each with a cell that takes a moment."""
    shutil.copy(ROOT / "conftest.py", folder)
    for name, stated in seconds.items():
        notebook: Any = nbformat.v4.new_notebook()
        notebook.cells = [nbformat.v4.new_code_cell("import time\ntime.sleep(1)")]
        notebook.metadata["cookbook"] = {"seconds": stated}
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, folder / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", "--nbmake", "-p", "no:cacheprovider", *options]
    rootdir = ["--rootdir", str(folder), "-c", str(folder / "pytest.ini")]
    (folder / "pytest.ini").write_text("[pytest]\n")
    return subprocess.run(
        [*command, *rootdir, "."], cwd=folder, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_seconds_outside_the_band_are_told_and_fail_only_on_request(tmp_path: Path) -> None:
    told = run(tmp_path, {"quick": 10_000.0})
    assert told.returncode == 0, told.stdout
    line = next(line for line in told.stdout.splitlines() if line.startswith("quick "))
    assert re.fullmatch(r"quick +10000\.0 +\d+\.\d  -100%  outside ±30%", line)
    took = float(line.split()[2])
    assert run(tmp_path, {"quick": 10_000.0}, "--check-seconds").returncode == 1
    assert took > 1
