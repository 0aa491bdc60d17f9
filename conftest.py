"""What ``pytest notebooks --nbmake`` does beyond running the notebooks.

``--stale-only`` leaves out those that were executed as they are. Afterwards a table compares the
seconds that each notebook promises with those it took; ``--check-seconds`` makes it a verdict, for
a quiet machine like the one that executed them.
"""

from pathlib import Path

import nbformat
import pytest

from cookbook.notebooks.stamp import KEY, is_current

BAND = 0.3
"""How far a fresh run may be from the stated seconds, as a share of them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    parser.addoption(
        "--stale-only",
        action="store_true",
        help="skip notebooks whose stamp is of these code cells and this package",
    )
    parser.addoption(
        "--check-seconds",
        action="store_true",
        help=f"fail when a notebook takes {BAND:.0%} more or less than it says",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Watch how long the notebooks take."""
    config.pluginmanager.register(Seconds(config), "notebook-seconds")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what was already executed, with these cells and this package, to be committed."""
    if not config.getoption("--stale-only"):
        return
    skip = pytest.mark.skip(reason="executed as it is: cells and package are those of its stamp")
    for item in items:
        if item.path.suffix == ".ipynb" and is_current(nbformat.read(item.path, as_version=4)):
            item.add_marker(skip)


class Seconds:
    """The seconds of each notebook that passed: as its stamp says, and as just measured."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.measured: dict[Path, tuple[float, float]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how long a notebook took."""
        path = self.config.rootpath / report.nodeid.split("::")[0]
        if path.suffix == ".ipynb" and report.when == "call" and report.passed:
            stated = nbformat.read(path, as_version=4).metadata.get(KEY, {}).get("seconds")
            if stated:
                self.measured[path] = (stated, report.duration)

    def outside(self) -> list[Path]:
        """Return the notebooks that took longer or shorter than the band allows."""
        pairs = self.measured.items()
        return [path for path, (stated, took) in pairs if abs(took / stated - 1) > BAND]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail if that was asked for."""
        if self.config.getoption("--check-seconds") and self.outside() and not session.exitstatus:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: "pytest.TerminalReporter") -> None:
        """Print the table."""
        if not self.measured:
            return
        outside = self.outside()
        terminalreporter.section("seconds: as the notebook says, and now")
        for path, (stated, took) in self.measured.items():
            mark = f"  outside ±{BAND:.0%}" if path in outside else ""
            share = took / stated - 1
            terminalreporter.line(f"{path.stem:24} {stated:7.1f} {took:7.1f}  {share:+5.0%}{mark}")
        if outside:
            terminalreporter.line("On a quiet machine: `make notebooks` writes the seconds anew.")
