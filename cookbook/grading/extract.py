"""Find the answer in a text: the last number, the last box, the line after ####."""

import re
import unicodedata

# Thousands separators only where they separate thousands: "1, 2" and "1,2" are two numbers. A sign
# counts unless a digit stands before it: "7-3" ends in 3.
_NUMBER = re.compile(r"(?:(?<!\d)-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")
_BOX = r"\boxed"


def plain_digits(text: str) -> str:
    """Return `text` with digits of any script as 0 to 9 and the minus sign as a hyphen."""
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(c, c)) for c in text).replace("\N{MINUS SIGN}", "-")


def last_number(text: str) -> str | None:
    """Return the last number of a text as digits, or None if there is none.

    Example:
        >>> last_number("It costs $1,234.50 in all.")
        '1234.50'
    """
    numbers = all_numbers(text)
    return numbers[-1] if numbers else None


def all_numbers(text: str) -> list[str]:
    """Return the numbers of a text in their order, as digits without thousands separators."""
    return [number.replace(",", "") for number in _NUMBER.findall(plain_digits(text))]


def last_boxed(text: str) -> str | None:
    r"""Return what is in the last ``\boxed{...}``, or None if it is absent or never closed.

    Example:
        >>> last_boxed(r"\boxed{1}, no: \boxed{\frac{1}{2}}")
        '\\frac{1}{2}'
    """
    start = text.rfind(_BOX)
    rest = text[start + len(_BOX) :].lstrip() if start >= 0 else ""
    if not rest.startswith("{"):
        return None
    end = closing_brace(rest)
    return None if end is None else rest[1:end]


def closing_brace(text: str) -> int | None:
    r"""Return the index of the brace that closes the one at index 0; ``\{`` and ``\}`` are text."""
    depth = 0
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0 and match[0] == "}":
            return match.start()
    return None


def gsm8k_answer(text: str) -> str | None:
    """Return what follows the last ``####`` on its line, without commas, or None.

    Source: the answer format of GSM8K, whose answers end in a line such as ``#### 1,080``.
    """
    _, mark, rest = text.rpartition("####")
    answer = rest.partition("\n")[0].replace(",", "").strip()
    return answer if mark and answer else None
