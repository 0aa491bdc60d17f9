"""The reference runs that are committed with the project, for reading and for comparing with."""

from pathlib import Path

from cookbook.errors import DataError

REFERENCE = Path(__file__).resolve().parents[2] / "results" / "reference"


def reference_runs(folder: Path = REFERENCE) -> dict[str, Path]:
    """Return the log path of each committed run by its name, wherever Python was started.

    Raises:
        DataError: the package is installed without the repository around it.
    """
    runs = {path.parent.name: path.parent for path in sorted(folder.glob("*/metrics.jsonl"))}
    if not runs:
        raise DataError(
            f"no reference runs in {folder}. They come with the repository, not with the package: "
            "clone it and install it from there, or give the log path of a run of your own."
        )
    return runs
