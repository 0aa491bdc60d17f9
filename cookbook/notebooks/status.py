"""The status line under a notebook's title: what it takes, in measured numbers.

The author writes the line once with the parts that are not measured; publishing fills in the rest:
``≈ 1 min 40 s on 2 CPU cores · 1.1 GiB · 0.4 M tokens if hosted · level 2 of 5 · executed <date>``.
"""

import re
from typing import Any

from cookbook.errors import ConfigError

_LINE = re.compile(r"^≈ .*$", re.MULTILINE)
_FILLED = re.compile(
    r"^≈ (\d+ min)?( ?\d+ s)? on \d+ CPU cores? · [\d.]+ GiB · .*executed \d{4}-\d\d-\d\d$"
)


def status_line(notebook: Any) -> str | None:
    """Return the first cell's line that starts with ``≈``, or None."""
    first = notebook.cells[0] if notebook.cells else None
    found = _LINE.search(first.source) if first and first.cell_type == "markdown" else None
    return found.group() if found else None


def is_filled(line: str) -> bool:
    """Say whether time, cores, memory and date stand in the line."""
    return bool(_FILLED.match(line))


def fill_status(notebook: Any, seconds: float, cores: int, peak_bytes: int, date: str) -> None:
    """Write the measured parts into the status line; the author's other parts stay.

    Raises:
        ConfigError: the first cell has no line that starts with ``≈``.
    """
    line = status_line(notebook)
    if line is None:
        raise ConfigError(
            "The first cell has no status line. Write one below the title, with question marks "
            "for what is measured: '≈ ? on ? CPU cores · ? GiB · level 1 of 5 · executed ?'."
        )
    kept = [part for part in line.split(" · ")[1:] if not re.search(r" [GM]iB$|^executed", part)]
    told = f"≈ {told_duration(seconds)} on {cores} CPU core{'s' if cores > 1 else ''}"
    memory = f"{peak_bytes / 2**30:.1f} GiB"
    filled = " · ".join([told, memory, *kept, f"executed {date}"])
    notebook.cells[0].source = notebook.cells[0].source.replace(line, filled)


def told_duration(seconds: float) -> str:
    """Return a duration in minutes and seconds, as coarse as the measurement deserves.

    Example:
        >>> told_duration(7.2), told_duration(43), told_duration(101.3), told_duration(118)
        ('8 s', '45 s', '1 min 40 s', '2 min')
    """
    step = 1 if seconds < 20 else 5
    whole = max(1, step * round(seconds / step)) if step > 1 else int(seconds) + 1
    minutes, rest = divmod(whole, 60)
    return " ".join([f"{minutes} min"] * bool(minutes) + [f"{rest} s"] * bool(rest))
