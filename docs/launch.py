"""Links that open the notebooks elsewhere: ``python docs/launch.py OWNER/NAME [BRANCH]``.

They need the repository's public place on GitHub, which only its publisher knows; what is printed
belongs into that repository's README or notebooks/README.md.
"""

import argparse
import re
import sys
from pathlib import Path
from urllib.parse import quote

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
BADGES = {
    "Colab": ("https://colab.research.google.com/assets/colab-badge.svg", "Open in Colab"),
    "Binder": ("https://mybinder.org/badge_logo.svg", "Launch on Binder"),
}


def links(repository: str, branch: str, notebook: str) -> dict[str, str]:
    """Return the address that opens a notebook (its file name) on Colab and on Binder."""
    at = f"{repository}/blob/{branch}/notebooks/{notebook}"
    tree = quote(f"lab/tree/notebooks/{notebook}", safe="")
    return {
        "Colab": f"https://colab.research.google.com/github/{at}",
        "Binder": f"https://mybinder.org/v2/gh/{repository}/{branch}?urlpath={tree}",
    }


def launch_page(repository: str, branch: str = "main") -> str:
    """Return the table of all notebooks with their badges, and what Colab needs first."""
    name = repository.split("/")[1]
    rows = []
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        where = links(repository, branch, path.name)
        cells = [f"[![{text}]({image})]({where[host]})" for host, (image, text) in BADGES.items()]
        rows.append(f"| {path.stem} | {' | '.join(cells)} |")
    codespace = f"https://codespaces.new/{repository}?ref={branch}"
    return "\n".join(
        [
            f"[Open all of it in a codespace]({codespace}), or open one notebook:",
            "",
            f"| notebook | {' | '.join(BADGES)} |",
            f"|---|{'---|' * len(BADGES)}",
            *rows,
            "",
            "On Colab, run this in a cell of its own before the first one:",
            "",
            f"    !git clone -q --depth 1 -b {branch} https://github.com/{repository}",
            f"    %pip install -q -e {name}",
            f"    %cd {name}/notebooks",
            "    import sys; sys.path.insert(0, '..')",
            "",
            "Binder gives 1 to 2 GiB of memory: the minimal loops fit, larger notebooks may not.",
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the page."""
    parser = argparse.ArgumentParser(prog="python docs/launch.py", description=__doc__)
    parser.add_argument("repository", help="OWNER/NAME on GitHub")
    parser.add_argument("branch", nargs="?", default="main")
    options = parser.parse_args(arguments)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", options.repository):
        parser.error(f"expected OWNER/NAME, got {options.repository!r}")
    print(launch_page(options.repository, options.branch))
    return 0


if __name__ == "__main__":
    sys.exit(main())
