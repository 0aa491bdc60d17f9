"""Who looks at what is shown: nobody yet, a terminal, or a person before a page that can answer."""

import functools
import importlib.util
import os
import sys
from typing import Any

import psutil

SESSION = "JPY_SESSION_NAME"
"""Set by a Jupyter server in the kernels of its pages; nothing else that starts kernels sets it."""


def in_notebook() -> bool:
    """Return whether this is a Jupyter kernel, whoever drives it."""
    if "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    return hasattr(get_ipython(), "kernel")


@functools.cache
def is_live() -> bool:
    """Return whether a page of JupyterLab or Jupyter Notebook shows what this kernel displays.

    False under papermill, nbclient, nbmake and nbconvert, also when they are started from a cell of
    such a page, and in terminals: there nobody can press a button, and only the last state stays.
    """
    return in_notebook() and SESSION in os.environ and SESSION not in _environment_of_the_starter()


def draws_widgets() -> bool:
    """Return whether the page can show ipywidgets (the extra ``lab`` installs them)."""
    return is_live() and importlib.util.find_spec("ipywidgets") is not None


@functools.cache
def drop_progress_bars() -> None:
    """Make tqdm's bars for notebooks invisible where they would be stored as a broken widget.

    tqdm asks no variable about them, and what draws them (the loading of a model) has no common
    switch. In a page, and outside kernels, bars stay as they are.
    """
    if not in_notebook() or is_live():
        return
    from tqdm.notebook import tqdm_notebook

    begin = tqdm_notebook.__init__

    def invisible(self: Any, *args: Any, **options: Any) -> None:
        begin(self, *args, **{**options, "disable": True})

    tqdm_notebook.__init__ = invisible  # type: ignore[method-assign]


def _environment_of_the_starter() -> dict[str, str]:
    try:
        return psutil.Process().parent().environ()  # type: ignore[union-attr]
    except (psutil.Error, AttributeError):  # not ours to read, or gone
        return {}
