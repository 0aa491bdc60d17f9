"""Execute, clean and stamp notebooks: ``python -m cookbook.notebooks [--check] [PATH ...]``."""

import argparse
import sys
from pathlib import Path

from nbclient.exceptions import CellExecutionError, CellTimeoutError

from cookbook.notebooks.faults import faults
from cookbook.notebooks.publish import publish
from cookbook.notebooks.stamp import PACKAGE


def main(arguments: list[str] | None = None) -> int:
    """Publish or check the notebooks named, by default all; return 1 if any is at fault, else 0."""
    parser = argparse.ArgumentParser(prog="python -m cookbook.notebooks", description=__doc__)
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="notebook files")
    parser.add_argument("--check", action="store_true", help="only tell faults, execute nothing")
    options = parser.parse_args(arguments)
    paths = options.paths or sorted((PACKAGE.parent / "notebooks").glob("*.ipynb"))
    if not paths:
        print("No notebooks found.", file=sys.stderr)
        return 1
    return int(sum(not _handle(path, options.check) for path in paths) > 0)


def _handle(path: Path, check_only: bool) -> bool:
    """Publish or check one notebook, say how it went, and return whether all is well."""
    try:
        found = faults(path) if check_only else publish(path)
    except (CellExecutionError, CellTimeoutError) as error:
        print(f"{path}: not stored, because a cell failed.\n{error}", file=sys.stderr)
        return False
    for fault in found:
        print(f"{path}: {fault}", file=sys.stderr)
    if not found:
        print(f"{path}: {'no faults' if check_only else 'executed and stamped'}", flush=True)
    return not found


if __name__ == "__main__":
    sys.exit(main())
