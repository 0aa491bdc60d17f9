"""The option ``--stale-only`` for ``pytest notebooks --nbmake``."""

import nbformat
import pytest

from cookbook.notebooks.stamp import is_current


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--stale-only",
        action="store_true",
        help="skip notebooks whose stamp is of these code cells and this package",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what was already executed, with these cells and this package, to be committed."""
    if not config.getoption("--stale-only"):
        return
    skip = pytest.mark.skip(reason="executed as it is: cells and package are those of its stamp")
    for item in items:
        if item.path.suffix == ".ipynb" and is_current(nbformat.read(item.path, as_version=4)):
            item.add_marker(skip)
