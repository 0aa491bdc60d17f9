"""Memory that is no longer used, given back to the system.

The allocator of the C library keeps what large tensors of ever other sizes leave behind: after a
dozen training steps half a gigabyte that nothing reads. Asking for it back takes about 30 ms.
"""

import ctypes
import sys
import time
from collections.abc import Callable

EVERY_S = 1.0  # a short step should not pay for it each time

_last = 0.0


def give_back() -> None:
    """Return free pages to the system, unless that was done a moment ago; glibc only."""
    global _last
    if _trim is None or time.monotonic() - _last < EVERY_S:
        return
    _trim(0)
    _last = time.monotonic()


def _glibc_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have no such call


_trim = _glibc_trim()
