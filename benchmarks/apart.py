"""A program in a process of its own: two thread pools in one process slow each other down."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

_program: Any = None


class Apart:
    """Calls the methods of an object that lives in another process."""

    def __init__(self, program: Callable[..., Any], *arguments: Any) -> None:
        """Start the process, and there `program(*arguments)`."""
        fresh = multiprocessing.get_context("spawn")
        self._process = ProcessPoolExecutor(1, fresh, _start, (program, *arguments))
        self._process.submit(int).result()

    def __call__(self, method: str, *arguments: Any) -> None:
        """Call a method there and wait until it has returned."""
        self._process.submit(_call, method, *arguments).result()

    def close(self) -> None:
        """End the process."""
        self._process.shutdown()


def _start(program: Callable[..., Any], *arguments: Any) -> None:
    global _program
    _program = program(*arguments)


def _call(method: str, *arguments: Any) -> None:
    getattr(_program, method)(*arguments)
