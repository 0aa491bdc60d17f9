"""What a run was made with: versions, platform class, commit. No host name, no path."""

import platform
import subprocess
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("tinker-cookbook-notebooks", "tinker", "renderers", "transformers", "torch", "numpy")


def run_facts() -> dict[str, Any]:
    """Return start time, Python, platform class, package versions and commit of this process."""
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": package_versions(),
        "commit": commit(),
    }


def package_versions() -> dict[str, str]:
    """Return the installed version of each package that decides a run's numbers."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Return the commit this package's code is at, ending in "-dirty" when files differ from it.

    None when the code is not in a git work tree (an installed wheel) or git is missing.
    """
    here = Path(__file__)
    # A wheel inside somebody else's repository must not report that repository's commit.
    if not _git(here.parent, "ls-files", here.name):
        return None
    return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
