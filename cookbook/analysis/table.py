"""A small table that prints as aligned text and shows as HTML in a notebook."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Table:
    """Rows of text under named columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> "Table":
        """Return a table of `rows` with every cell as text."""
        return cls(tuple(columns), tuple(tuple(str(cell) for cell in row) for row in rows))

    def __str__(self) -> str:
        everything = (self.columns, *self.rows)
        widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
        padded = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in everything
        ]
        rule = "  ".join("-" * width for width in widths)
        return "\n".join([padded[0], rule, *padded[1:]])

    __repr__ = __str__

    def markdown(self) -> str:
        """Return the table in Markdown, ending without a newline."""
        lines = (self.columns, tuple("---" for _ in self.columns), *self.rows)
        cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
        return "\n".join(f"| {' | '.join(line)} |" for line in cells)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(column)}</th>" for column in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
