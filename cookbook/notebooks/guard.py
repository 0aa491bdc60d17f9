"""Stop a run whose parameters are misspelt.

papermill injects a name it does not know with a mere warning and then runs the defaults, so a
notebook has to look for itself: every plain value defined between the end of the setup cell and the
config cell must be a parameter.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cookbook.errors import ConfigError

# What papermill can inject; functions, modules and clients defined meanwhile are no parameters.
_PLAIN = (type(None), bool, int, float, str, list, tuple, dict)


class Mark:
    """The names a notebook knew when its setup cell ended; made by :func:`mark`."""

    def __init__(self, namespace: Mapping[str, Any]) -> None:
        self._namespace = namespace
        self._before = frozenset(namespace)
        self._checked = False

    def parameters(self, valid: Sequence[str]) -> dict[str, Any]:
        """Return the parameters' values by name, in the order of ``valid``.

        Unknown names are looked for on the first successful call only: the cell may be run again
        later, when other cells have long defined names of their own.

        Args:
            valid: the names that the notebook's ``parameters`` cell defines.
        Raises:
            ConfigError: a name since the mark is not in ``valid`` (the text gives the nearest valid
                name and all of them), or a name in ``valid`` is not defined.
        """
        if not self._checked:
            refuse_unknown(self._since_mark(), valid)
        missing = [name for name in valid if name not in self._namespace]
        if missing:
            raise ConfigError(
                f"Parameter not defined: {', '.join(missing)}. Run the cell tagged 'parameters' "
                "first; if you renamed a parameter there, rename it in the list of valid names too."
            )
        self._checked = True
        return {name: self._namespace[name] for name in valid}

    def _since_mark(self) -> list[str]:
        """Names of the plain values defined since the mark, without the kernel's own."""
        return [
            name
            for name, value in self._namespace.items()
            if name not in self._before and not name.startswith("_") and isinstance(value, _PLAIN)
        ]


def mark(namespace: Mapping[str, Any]) -> Mark:
    """Return a mark of the names defined so far; the last line of a setup cell.

    Args:
        namespace: the notebook's ``globals()``, kept as a live view.
    Example:
        >>> names: dict = {}
        >>> start = mark(names)
        >>> names["learning_rate"] = 1e-4  # what the parameters cell does
        >>> start.parameters(["learning_rate"])
        {'learning_rate': 0.0001}
    """
    return Mark(namespace)


def refuse_unknown(names: Iterable[str], valid: Sequence[str]) -> None:
    """Raise ConfigError if ``names`` holds one that is not in ``valid``, with the nearest one."""
    unknown = [name for name in names if name not in valid]
    if not unknown:
        return
    told = ", ".join(_with_nearest(name, valid) for name in unknown)
    raise ConfigError(
        f"Unknown parameter {told}. Valid parameters: {', '.join(valid)}. "
        "Correct the name and run again from the setup cell on."
    )


def _with_nearest(name: str, valid: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, valid, n=1)
    return f"'{name}' (did you mean '{nearest[0]}'?)" if nearest else f"'{name}'"
