"""A text drawn token by token, each shaded by a number: static HTML, and text where there is none.

No script and no widget: a page that strips styles still shows the marked tokens in bold, and the
plain text has them in ⟦brackets⟧, those below zero in ⟪others⟫. Everything from the text is
escaped. Shape: T tokens.
"""

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cookbook.chatml import decode
from cookbook.errors import DataError

MARKED = 0.5
"""Tokens shaded at least this much, either way, are marked without colour too."""
_BOX = "border:1px solid rgba(128,128,128,.45);border-radius:3px;margin:1px;padding:0 1px"
_BLOCK = "white-space:pre-wrap;line-height:1.75;font-family:monospace;font-size:90%"


@dataclass(frozen=True)
class TokenBoxes:
    """What `show_token_boxes` returns; notebooks show it as HTML, `print` as text."""

    title: str
    boxes: list[tuple[str, float]]
    """(text, shade) of each box; a box holds one token, or those that make one character."""

    def __repr__(self) -> str:
        return f"{self.title}\n{'|'.join(map(_marked, self.boxes))}"

    def _repr_html_(self) -> str:
        title = f"<b>{html.escape(self.title)}</b>" if self.title else ""
        return f'<div>{title}<div style="{_BLOCK}">{"".join(map(_box, self.boxes))}</div></div>'


def show_token_boxes(
    tokenizer: Any, tokens: Sequence[int], shades: Sequence[float], title: str = ""
) -> TokenBoxes:
    """Return a view of tokens (T,), each in a box as blue as its shade (T,), from 0 to 1.

    Shades below zero, down to -1, are as vermillion. With loss weights as shades it shows what is
    trained; with a share of the loss, where that is.

    Raises:
        DataError: lengths differ, or a shade is outside -1 to 1.
    Example:
        `show_token_boxes(tokenizer, *render_training(renderer, messages))` ends a notebook cell.
    """
    if len(tokens) != len(shades):
        raise DataError(f"Got {len(tokens)} tokens but {len(shades)} shades; give one for each.")
    if bad := [shade for shade in shades if not -1 <= shade <= 1]:
        raise DataError(
            f"A shade is {bad[0]}; allowed are -1 (vermillion) to 1 (blue). Scale them."
        )
    return TokenBoxes(title, list(_boxes(tokenizer, tokens, shades)))


def _boxes(
    tokenizer: Any, tokens: Sequence[int], shades: Sequence[float]
) -> Iterator[tuple[str, float]]:
    """Yield text and shade; tokens that are parts of one character go into one box."""
    start = 0
    for end in range(1, len(tokens) + 1):
        text = decode(tokenizer, tokens[start:end])
        if (
            text.endswith("\ufffd") and end < len(tokens) and end - start < 4
        ):  # bytes of a character
            continue
        yield text, max(shades[start:end], key=abs)
        start = end


def _box(box: tuple[str, float]) -> str:
    text, shade = box
    escaped = html.escape(text).replace("\n", "⏎\n")
    hue = "0,114,178" if shade > 0 else "213,94,0"
    colour = f";background:rgba({hue},{0.55 * abs(shade):.2f})" if shade else ""
    span = f'<span style="{_BOX}{colour}">{escaped}</span>'
    return f"<b>{span}</b>" if abs(shade) >= MARKED else span


def _marked(box: tuple[str, float]) -> str:
    text, shade = box
    if abs(shade) < MARKED:
        return text
    return f"⟦{text}⟧" if shade > 0 else f"⟪{text}⟫"
