"""Learning from comparisons of two answers."""

from cookbook.preferences.comparison import (
    LABELS,
    Comparison,
    Label,
    shuffled_sides,
    symmetrised,
    without_ties,
)

__all__ = [
    "LABELS",
    "Comparison",
    "Label",
    "shuffled_sides",
    "symmetrised",
    "without_ties",
]
