"""The grader's worker process: questions on standard input, verdicts on standard output.

A question is a line [answer, gold] in JSON; a verdict is a line, 1 or 0. Started by
`cookbook.grading.MathGrader` as ``python -m cookbook.grading.worker <limit in s> <memory in MiB>``.
"""

import contextlib
import faulthandler
import json
import os
import signal
import sys
from typing import Any, cast

from cookbook.grading.grader import EQUAL, READY, UNEQUAL


def main(limit_s: float, memory_mib: int) -> None:
    """Answer questions until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _bound_memory(memory_mib)
    # Whatever a library prints goes elsewhere.
    with os.fdopen(os.dup(1), "wb", buffering=0) as verdicts:
        os.dup2(2, 1)
        try:
            import math_verify  # noqa: F401  # the slow part, before anyone's clock runs
        except ImportError as error:
            verdicts.write(str(error).encode() + b"\n")
            return
        verdicts.write(READY + b"\n")
        for line in sys.stdin.buffer:
            answer, gold = json.loads(line)
            # The asker's clock is the limit. This one is for when the asker is gone: it needs
            # neither the interpreter's lock nor a signal, and ends the process.
            faulthandler.dump_traceback_later(2 * limit_s, exit=True)
            equal = is_equal(answer, gold)
            faulthandler.cancel_dump_traceback_later()
            verdicts.write((EQUAL if equal else UNEQUAL) + b"\n")


def is_equal(answer: str, gold: str) -> bool:
    r"""Return whether two contents of a ``\boxed{}`` are equal, without any limit.

    Raises:
        MemoryError: the process is out of memory, and should end.
    """
    from math_verify import LatexExtractionConfig, parse, verify

    # The whole content is the answer: no looking for a number in a sentence.
    whole = [LatexExtractionConfig(boxed_match_priority=0)]
    try:
        # Its time limits need signals in the main thread, which Windows lacks; ours is outside.
        wanted, given = (
            parse(rf"\boxed{{{text}}}", whole, parsing_timeout=cast(Any, None), raise_on_error=True)
            for text in (gold, answer)
        )
        return bool(verify(wanted, given, timeout_seconds=None, raise_on_error=True))
    except MemoryError:
        raise
    except Exception:  # the library's and its parser's own, of many kinds: not understood
        return False


def _bound_memory(memory_mib: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    size = memory_mib * 2**20
    with contextlib.suppress(ValueError, OSError):  # macOS knows the limit but may refuse it
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
