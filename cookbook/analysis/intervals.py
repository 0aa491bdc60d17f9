"""95% intervals for rates and means."""

import math
from collections.abc import Sequence

import numpy as np

from cookbook.errors import DataError

Z95 = 1.959963984540054
"""Standard normal quantile at 0.975."""


def wilson_interval(k: int, n: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a rate, from `k` successes in `n` trials.

    Formula: centre (p + z²/2n) / (1 + z²/n), half-width z √(p(1−p)/n + z²/4n²) / (1 + z²/n), with
    p = k/n and z = 1.96.
    Source: Wilson 1927, J. Am. Stat. Assoc. 22:209; recommended over p ± z√(p(1−p)/n) by Brown,
    Cai, DasGupta 2001, Statistical Science 16:101. It stays within [0, 1] and works for k = 0.

    Raises:
        DataError: not 0 <= k <= n, or n is 0.

    Example:
        >>> [round(bound, 3) for bound in wilson_interval(8, 10)]
        [0.49, 0.943]
    """
    if n < 1 or not 0 <= k <= n or k != int(k) or n != int(n):
        raise DataError(f"wilson_interval: expected whole 0 <= k <= n and n >= 1, got {k=}, {n=}.")
    rate, z2 = k / n, Z95**2
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At the ends the interval touches 0 or 1 exactly; rounding must not push it past.
    return (0.0 if k == 0 else centre - half, 1.0 if k == n else centre + half)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95% Student-t interval of the mean of independent `values`.

    Formula: mean ± t s/√n, s² = Σ(x − mean)²/(n − 1), t the 0.975 quantile with n − 1 degrees of
    freedom.
    Source: Student 1908, Biometrika 6:1.

    Raises:
        DataError: fewer than two values (one says nothing about the spread), or one not finite.

    Example:
        >>> [round(bound, 2) for bound in mean_interval([1.0, 2.0, 3.0])]
        [-0.48, 4.48]
    """
    array = np.asarray(values, dtype=float)
    if array.size < 2 or not np.isfinite(array).all():
        raise DataError(
            f"mean_interval: expected at least 2 finite values, got {array.size} of which "
            f"{int(np.isfinite(array).sum())} are finite."
        )
    half = t_quantile95(array.size - 1) * float(array.std(ddof=1)) / math.sqrt(array.size)
    return float(array.mean()) - half, float(array.mean()) + half


def t_quantile95(degrees: int) -> float:
    """Return the 0.975 quantile of Student's t; exact for 1 and 2 degrees, else within 0.2%.

    Source: Abramowitz & Stegun 1964, 26.7.3-4 (closed forms) and 26.7.5 (expansion around the
    normal quantile, four terms).
    """
    if degrees == 1:
        return math.tan(math.pi * 0.475)
    if degrees == 2:
        return 0.95 * math.sqrt(2 / (1 - 0.95**2))
    z = Z95
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, start=1))
