"""Decide whether two answers are equal, in a process that can be killed.

Computer algebra on a model's words may take for ever or all memory, so it happens in a worker: one
process, started on first use, fed one question at a time, killed and replaced when it takes too
long. It ends with this process, however that ends.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading

from cookbook.errors import ConfigError
from cookbook.grading.extract import closing_brace, plain_digits

MAX_CHARS = 1000
"""Longest answer that is looked at, in characters; the longest of MATH has about 100."""
START_LIMIT_S = 120.0
"""How long the worker may take to import its library; seconds on an idle machine."""

READY, EQUAL, UNEQUAL = b"ready", b"1", b"0"
"""What the worker says: the first when it has started, one of the others to each question."""

_INTEGER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)")


class MathGrader:
    """Equality of mathematical answers by `math-verify`, within a time limit.

    May be shared between threads, which then wait for each other; the limit counts from the moment
    a question's turn comes.

    Args:
        limit_s: seconds for one question, more than 0.
        memory_mib: address space of the worker in MiB, where the platform can bound it.
    Raises:
        ConfigError: a limit that is not positive.
    """

    timeouts: int = 0
    """Questions given up so far: the limit passed, or the worker died."""

    def __init__(self, limit_s: float = 2.0, memory_mib: int = 1024) -> None:
        if not (limit_s > 0 and memory_mib > 0):
            raise ConfigError(
                f"limit_s={limit_s} and memory_mib={memory_mib}: both must be positive."
            )
        self.limit_s = limit_s
        self.memory_mib = memory_mib
        self._lock = threading.Lock()
        self._worker: _Worker | None = None

    def is_correct(self, answer: str, gold: str) -> bool:
        r"""Return whether `answer` equals `gold`, both as the content of a ``\boxed{}``.

        Whatever the answer is, there is no exception: one that is empty, unreadable, longer than
        `MAX_CHARS` or not decided in time is not correct. Text equals itself.

        Raises:
            ConfigError: the worker cannot start, which no answer is to blame for.
        """
        answer, gold = _tidy(answer), _tidy(gold)
        if not answer or not gold:
            return False
        if answer == gold:
            return True
        if not (_fits_a_box(answer) and _fits_a_box(gold)):
            return False
        if _INTEGER.fullmatch(answer) and _INTEGER.fullmatch(gold):
            return int(answer.replace(",", "")) == int(gold.replace(",", ""))
        with self._lock:
            return self._ask(json.dumps([answer, gold]).encode() + b"\n")

    def close(self) -> None:
        """End the worker; the next question starts another."""
        with self._lock:
            self._drop()

    def _ask(self, question: bytes) -> bool:
        if not (self._worker and self._worker.is_alive()):
            self._drop()
            self._worker = _Worker(self.limit_s, self.memory_mib)
        verdict = b""
        try:
            verdict = self._worker.exchange(question, self.limit_s)
        finally:  # after an interrupt too: its late verdict must not answer the next question
            if not verdict:
                self._drop()
        self.timeouts += not verdict
        return verdict == EQUAL

    def _drop(self) -> None:
        if self._worker:
            self._worker.kill()
            self._worker = None


def _tidy(text: str) -> str:
    return plain_digits(text).strip().removesuffix(".")


def _fits_a_box(text: str) -> bool:
    """Return whether `text` is short enough to look at, and all its braces are closed within it."""
    return len(text) <= MAX_CHARS and closing_brace(f"{{{text}}}") == len(text) + 1


class _Worker:
    """A running ``python -m cookbook.grading.worker``."""

    def __init__(self, limit_s: float, memory_mib: int) -> None:
        command = [sys.executable, "-m", "cookbook.grading.worker", str(limit_s), str(memory_mib)]
        self.owner = os.getpid()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closes when this process ends, and so ends the worker
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # the library warns that its own time limit is off
            start_new_session=True,  # an interrupt of a notebook cell is not meant for it
        )
        greeting = b""
        try:
            greeting = self.exchange(b"", START_LIMIT_S)
        finally:
            if greeting != READY:
                self.kill()
        if greeting != READY:
            said = greeting.decode(errors="replace") or "it said nothing"
            raise ConfigError(
                f"The grader's worker process did not start: {said}. Install the package again "
                "(pip install -e .), and see what `python -m cookbook.grading.worker 2 1024` says."
            )

    def is_alive(self) -> bool:
        """Return whether it runs and is ours: a forked copy of us must start its own."""
        return os.getpid() == self.owner and self.process.poll() is None

    def exchange(self, question: bytes, limit_s: float) -> bytes:
        """Return the line that answers `question`; b"" if the limit passed or the worker died."""
        assert self.process.stdin
        assert self.process.stdout
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self.process.kill()  # which ends the waiting below

        timer = threading.Timer(limit_s, expire)
        timer.daemon = True
        timer.start()
        try:
            self.process.stdin.write(question)
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:  # it died before it read the question
            line = b""
        finally:
            timer.cancel()
        timer.join()  # so that it does not kill during the next question
        return b"" if expired.is_set() else line.strip()

    def kill(self) -> None:
        """End it at once, and close what leads to it."""
        if os.getpid() == self.owner:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with contextlib.suppress(OSError):  # a question that it never read is still in it
                    pipe.close()
