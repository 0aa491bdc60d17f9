"""An event loop in a thread, for asynchronous work below code that is not.

Notebook cells and the trainer are plain code: they can be interrupted and read from top to bottom.
(A notebook's kernel runs an event loop of its own, in which a second one cannot be started.)
"""

import asyncio
import sys
import threading
import traceback
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, Self

LEAST_PATIENCE_S = 10.0
"""One turn of the loop may take seconds: every environment that is ready has its part in it."""


class Blocked(Exception):
    """Something in the loop neither ends nor awaits, so nothing else gets its turn."""


class Background:
    """Runs coroutines until it is closed; what still runs then is cancelled."""

    def __init__(self) -> None:
        self.blocked, self._closed = False, False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="rollouts", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    def submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Start a coroutine; waiting for the future's result can be interrupted."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def result(self, future: Future[Any], patience_s: float) -> Any:
        """Return the future's result.

        Raises:
            Blocked: the loop has not turned for `patience_s` (no less than `LEAST_PATIENCE_S`).
        """
        patience_s = max(patience_s, LEAST_PATIENCE_S)
        while not wait([future], timeout=patience_s).done:
            if not self._turns_within(patience_s):
                self.blocked = True
                raise Blocked(f"{self._where()} has blocked all others for {patience_s:g} s")
        return future.result()

    def close(self) -> None:
        """Cancel what runs and end the thread; one that is blocked is left to do so by itself."""
        if self._closed:
            return
        self._closed = True
        self.submit(self._end())
        self._thread.join(0 if self.blocked else LEAST_PATIENCE_S)

    def _turns_within(self, seconds: float) -> bool:
        turned = threading.Event()
        self._loop.call_soon_threadsafe(turned.set)
        return turned.wait(seconds)

    def _where(self) -> str:
        """Return the line that holds the loop's thread: the first one that is not of this room."""
        frame = sys._current_frames()[self._thread.ident or 0]
        stack, room = traceback.extract_stack(frame), str(Path(__file__).parent)
        own = max((i for i, at in enumerate(stack) if at.filename.startswith(room)), default=-1)
        at = stack[min(own + 1, len(stack) - 1)]
        return f"{at.name} (line {at.lineno} of {Path(at.filename).name}: {at.line})"

    async def _end(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._loop.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
