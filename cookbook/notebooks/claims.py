"""Compare fresh claims with the committed ones: ``python -m cookbook.notebooks.claims PATH ...``.

For other versions of the dependencies than those that made the outputs: numbers may then differ a
little, and a claim outside its band says that the committed outputs no longer tell the truth.
"""

import argparse
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient.exceptions import CellExecutionError, CellTimeoutError

from cookbook.notebooks import stamp
from cookbook.notebooks.publish import execute

RELATIVE, ABSOLUTE = 0.15, 0.15
"""The band: a share of the committed number, or this much for shares and other small numbers."""


def main(arguments: list[str] | None = None) -> int:
    """Execute the notebooks, change no file, tell the differences; return 1 if there are any."""
    parser = argparse.ArgumentParser(prog="python -m cookbook.notebooks.claims")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    found = {path: _compare(path) for path in parser.parse_args(arguments).paths}
    for path, differences in found.items():
        print(f"{path.name}: {'; '.join(differences) or 'claims within their bands'}", flush=True)
    return int(any(found.values()))


def differences(committed: Mapping[str, Any], fresh: Mapping[str, Any]) -> list[str]:
    """Return one line for each claim that is missing, new or outside its band."""
    names = list(dict.fromkeys([*committed, *fresh]))
    return [
        f"{name} was {committed.get(name, 'absent')}, is {fresh.get(name, 'absent')}"
        for name in names
        if not (name in committed and name in fresh and _alike(committed[name], fresh[name]))
    ]


def _alike(old: Any, new: Any) -> bool:
    if isinstance(old, bool) or not isinstance(old, int | float):
        return old == new
    if not isinstance(new, int | float):
        return False
    return math.isclose(old, new, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def _compare(path: Path) -> list[str]:
    notebook: Any = nbformat.read(path, as_version=4)
    committed = notebook.metadata.get(stamp.KEY, {}).get("claims")
    if not committed:
        return ["no committed claims"]
    try:
        execute(notebook, path.parent)
    except CellExecutionError as error:
        return [f"a cell failed: {error.ename}: {error.evalue}"]
    except CellTimeoutError as error:
        return [f"a cell failed: {error}"]
    return differences(committed, stamp.claims(notebook) or {})


if __name__ == "__main__":
    sys.exit(main())
