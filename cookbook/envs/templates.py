"""The texts of the word problems.

All numbers are at least 2, so that the plural is always right; no sentence needs a pronoun for a
person or an article for a thing. The first two templates of a level make its solved examples.
"""

from dataclasses import dataclass

NAMES = (
    "Gina", "Omar", "Lena", "Tariq", "Mei", "Jonas", "Priya", "Diego", "Nora", "Kofi",
    "Yuki", "Sven", "Amara", "Luca", "Zoe", "Ravi", "Ines", "Milo", "Aisha", "Petra",
)  # fmt: skip
THINGS = (
    "cups", "pens", "shells", "books", "apples", "stamps", "coins", "beads", "buttons", "stickers",
    "marbles", "cards", "keys", "ribbons", "pears", "candles", "maps", "bells", "nuts", "stones",
)  # fmt: skip


@dataclass(frozen=True)
class Template:
    """A text with places for names, things and the numbers a, b, c, d; and how to solve it."""

    level: int
    text: str
    steps: tuple[str, ...]
    """Each of the form "a + b"; x, y and z are the results of the first, second and third."""

    @property
    def n_numbers(self) -> int:
        """How many numbers the text has."""
        return sum(f"{{{letter}}}" in self.text for letter in "abcd")


TEMPLATES = (
    Template(
        1,
        "{name} has {a} {things} and finds {b} more. How many {things} does {name} have now?",
        ("a + b",),
    ),
    Template(
        1,
        "{name} has {a} {things} and gives {b} of them to {other}. "
        "How many {things} does {name} have left?",
        ("a - b",),
    ),
    Template(
        1,
        "{name} has {a} {things} and {other} has {b} {things}. "
        "How many {things} do they have together?",
        ("a + b",),
    ),
    Template(
        1,
        "There are {a} {things} in a box. {name} takes {b} of them out. "
        "How many {things} are still in the box?",
        ("a - b",),
    ),
    Template(
        1,
        "{name} puts {a} {things} on the table, and {other} puts {b} more {things} beside them. "
        "How many {things} are on the table?",
        ("a + b",),
    ),
    Template(
        1,
        "{name} buys {a} {things} and loses {b} of them on the way home. "
        "How many {things} does {name} bring home?",
        ("a - b",),
    ),
    Template(
        1,
        "{name} sold {a} {things} in the morning and {b} {things} in the afternoon. "
        "How many {things} did {name} sell that day?",
        ("a + b",),
    ),
    Template(
        1,
        "{name} needs {a} {things} and already has {b}. How many {things} are missing?",
        ("a - b",),
    ),
    Template(
        1,
        "{name} saw {a} {things} in one window and {b} {things} in the next. "
        "How many {things} did {name} see?",
        ("a + b",),
    ),
    Template(
        1,
        "Of {a} {things} on the floor, {name} picks up {b}. How many {things} stay on the floor?",
        ("a - b",),
    ),
    Template(
        1,
        "{name} gets {a} {things} from {other} and has {b} {things} already. "
        "How many {things} does {name} have then?",
        ("a + b",),
    ),
    Template(
        1,
        "{name} had {a} {things} yesterday. Today {b} of them are gone. "
        "How many {things} does {name} have today?",
        ("a - b",),
    ),
    Template(
        2,
        "{name} has {a} bags with {b} {things} in each bag. "
        "How many {things} does {name} have in all?",
        ("a * b",),
    ),
    Template(
        2,
        "{name} has {a} {things} and {other} has {b} {things}. "
        "How many more {things} does {name} have than {other}?",
        ("a - b",),
    ),
    Template(
        2,
        "There are {a} shelves in a shop, and {b} {things} on each shelf. "
        "How many {things} are on the shelves?",
        ("a * b",),
    ),
    Template(
        2,
        "{name} collects {a} {things} every day. "
        "How many {things} does {name} collect in {b} days?",
        ("a * b",),
    ),
    Template(
        2,
        "In a drawer there are {a} {things} and {b} {others}. "
        "How many more {things} than {others} are there?",
        ("a - b",),
    ),
    Template(
        3,
        "{name} has {a} bags with {b} {things} in each bag, and {c} loose {things}. "
        "How many {things} does {name} have in all?",
        ("a * b", "x + c"),
    ),
    Template(
        3,
        "{name} has {a} {things}, finds {b} more and then gives {c} of them to {other}. "
        "How many {things} does {name} have left?",
        ("a + b", "x - c"),
    ),
    Template(
        3,
        "{name} buys {a} boxes of {b} {things} and gives {c} {things} away. "
        "How many {things} does {name} have left?",
        ("a * b", "x - c"),
    ),
    Template(
        3,
        "{name} has {a} {things}. {other} has {b} more {things} than {name}. "
        "How many {things} do they have together?",
        ("a + b", "a + x"),
    ),
    Template(
        3,
        "There are {a} {things} and {b} {others} in a basket. {name} takes {c} {things} out. "
        "How many {things} and {others} are left in the basket, counted together?",
        ("a - c", "x + b"),
    ),
    Template(
        3,
        "{name} and {other} have {a} {things} each. {name} finds {b} more. "
        "How many {things} do they have together now?",
        ("a + a", "x + b"),
    ),
    Template(
        4,
        "{name} has {a} {things}, buys {b} more, gives {c} to {other} and loses {d}. "
        "How many {things} does {name} have left?",
        ("a + b", "x - c", "y - d"),
    ),
    Template(
        4,
        "{name} buys {a} boxes of {b} {things} and {c} boxes of {d} {others}. "
        "How many {things} and {others} is that, counted together?",
        ("a * b", "c * d", "x + y"),
    ),
    Template(
        4,
        "A shop has {a} shelves with {b} {things} on each shelf. It sells {c} {things} and then "
        "gets {d} new ones. How many {things} does the shop have now?",
        ("a * b", "x - c", "y + d"),
    ),
    Template(
        4,
        "{name} has {a} {things} and {other} has {b} {things}. They put them together, buy {c} "
        "more, and share all of them equally among {d} friends. "
        "How many {things} does each friend get?",
        ("a + b", "x + c", "y / d"),
    ),
    Template(
        4,
        "{name} has {a} {things}. {other} has {b} more {things} than {name}. Together they give "
        "{c} {things} away. How many {things} do they have left?",
        ("a + b", "a + x", "y - c"),
    ),
)
