"""Numbers and durations as a reader wants them."""

import math
from decimal import Decimal


def number(value: float, digits: int = 4) -> str:
    """Return `value` with `digits` significant digits: 2.307, 0.0001234, 51,200, nan."""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else f"{value}"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 10**digits:
        return f"{round(value):,}"
    return f"{value:.{digits}g}"


def scientific(value: float) -> str:
    """Return `value` as the fewest digits that mean the same number: 1e-05, 2.5e-04, 0e+00."""
    if value == 0:
        return "0e+00"
    mantissa, exponent = f"{Decimal(repr(float(value))):e}".split("e")
    digits = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{digits}e{int(exponent):+03d}"


def duration(seconds: float) -> str:
    """Return `seconds` as 0.84 s, 12.3 s, 3 min 20 s or 2 h 05 min."""
    if not math.isfinite(seconds):
        return "not logged"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def sentence_case(text: str) -> str:
    """Return `text` with its first letter capital and the others as they are."""
    return text[:1].upper() + text[1:]
