"""What the tests of the notebooks share."""

from pathlib import Path
from typing import Any

import nbformat
import pytest

BAD = Path(__file__).parent / "bad"


@pytest.fixture
def good() -> Any:
    """The tiny notebook without a fault, as it is stored."""
    return nbformat.read(BAD / "good.ipynb", as_version=4)


@pytest.fixture(autouse=True)
def kernel_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let kernels import the package from any folder, and use the embedded engine."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.delenv("TINKER_BASE_URL", raising=False)
    monkeypatch.delenv("TINKER_API_KEY", raising=False)
