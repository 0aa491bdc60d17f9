"""Files of one JSON object per line, written whole and read past a torn end.

A line is appended with a single write call, so a killed process leaves either the whole line or a
torn last one; reading leaves the torn one out and `repair` removes it.

JSON has no NaN or infinity. They are stored as the strings "NaN", "Infinity" and "-Infinity" (as
the JSON mapping of protocol buffers does) and come back as floats: the file stays valid JSON for
other programs, and a diverged value stays distinguishable from one that was not measured.
"""

import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from cookbook.errors import DataError

Record = dict[str, Any]
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What a line file holds: its good records, and what is wrong with the other lines."""

    records: list[Record]
    """The JSON objects, in file order."""
    faults: list[str]
    """One message for each broken line that is not the last."""
    torn: bool
    """True when the last line is incomplete: its writer was killed."""
    whole_bytes: int
    """Length of the file in bytes without the torn line."""


def encode(value: object) -> Any:
    """Return `value` as plain JSON data; numpy and torch values become numbers or lists.

    Raises:
        DataError: JSON has no form for the value; the message shows it.
    """
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else _spell_non_finite(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    to_python = getattr(value, "tolist", None)
    if callable(to_python):
        return encode(to_python())
    raise DataError(
        f"expected numbers, text, None, lists or mappings, got {type(value).__name__} "
        f"{value!r:.80}. Convert it first, for example with float(...) or str(...)."
    )


def decode(value: Any) -> Any:
    """Return JSON data with the spelled-out non-finite numbers as floats again."""
    if isinstance(value, str):
        return _NON_FINITE.get(value, value)
    if isinstance(value, dict):
        return {key: decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode(item) for item in value]
    return value


def _spell_non_finite(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def open_for_append(path: Path) -> FileIO:
    """Return `path` opened unbuffered and only for appending; it is made when missing."""
    return FileIO(path, "a")


def append(file: FileIO, record: Mapping[str, object], *, sync: bool = False) -> None:
    """Append `record` as one line in one write; `sync` lets it survive a power cut too.

    Raises:
        OSError: the disk is full; the part that got written is taken back first.
    """
    data = (json.dumps(encode(record), allow_nan=False) + "\n").encode()
    before = file.seek(0, os.SEEK_END)
    if file.write(data) != len(data):
        file.truncate(before)
        raise OSError("the disk is full: the last line could not be written and was taken back")
    if sync:
        os.fsync(file.fileno())


def scan(path: Path) -> Scan:
    """Return the records of `path` and a note of every broken line; a missing file is empty.

    A last line without its newline counts when it is a whole JSON object, else it is torn. So is a
    last line that ends in a newline but is no object: a power cut can leave one.
    """
    content = path.read_bytes() if path.exists() else b""
    raw_lines = content.splitlines(keepends=True)
    records: list[Record] = []
    faults: list[str] = []
    whole_bytes = 0
    for number, line in enumerate(raw_lines, start=1):
        record = _parse(line)
        if record is not None:
            records.append(record)
        elif line.strip() and number < len(raw_lines):
            faults.append(
                f"{path.name} line {number}: expected one JSON object, got {_excerpt(line)}. "
                "Delete or mend that line."
            )
        elif line.strip():
            return Scan(records=records, faults=faults, torn=True, whole_bytes=whole_bytes)
        whole_bytes += len(line)
    return Scan(records=records, faults=faults, torn=False, whole_bytes=whole_bytes)


def read(path: Path) -> list[Record]:
    """Return the records of `path`, leaving out a torn last line.

    Raises:
        DataError: a line before the last is not a JSON object; the message names file and line.
    """
    found = scan(path)
    if found.faults:
        raise DataError(found.faults[0])
    return found.records


def repair(path: Path) -> bool:
    """Cut a torn last line off `path` so that the next line starts on its own; True if it did."""
    found = scan(path)
    size = path.stat().st_size if path.exists() else 0
    if found.torn:
        with path.open("r+b") as file:
            file.truncate(found.whole_bytes)
    elif size and not path.read_bytes().endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")
    return found.torn


def rewrite(path: Path, records: list[Record]) -> None:
    """Replace the lines of `path` by `records`, all or nothing."""
    texts = [json.dumps(encode(record), allow_nan=False) + "\n" for record in records]
    replace(path, "".join(texts))


def replace(path: Path, text: str) -> None:
    """Write `text` to `path` all or nothing: aside, to disk, then renamed over it."""
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).chmod(0o644)  # mkstemp makes it private
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def _parse(line: bytes) -> Record | None:
    try:
        value = json.loads(line)
    except ValueError:  # covers bad JSON and bad UTF-8
        return None
    return decode(value) if isinstance(value, dict) else None


def _excerpt(line: bytes) -> str:
    text = line.decode("utf-8", errors="replace").strip()
    return repr(text if len(text) <= 60 else text[:57] + "...")
