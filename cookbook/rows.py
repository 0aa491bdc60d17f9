"""Rows of a data set, from files and the hub; messages are checked on the way in.

A bad row is an error that names file, line and field, shows the value and says what to do.
"""

import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from cookbook.errors import ConfigError, DataError

Row = Mapping[str, Any]
Message = dict[str, Any]
Conversation = list[Message]
RowMapper = Callable[[Row], Any]

ROLES = ("system", "user", "assistant", "tool")
FILE_ENDINGS = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")


class FieldError(DataError):
    """A field of one row is wrong; the loader adds file and line to it."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"field {field!r}: {text}")


def kind_of(source: str, bundled: str) -> Literal["bundled", "local", "hub"]:
    """Return where the data set `source` comes from.

    Args:
        source: `bundled`, a path with one of `FILE_ENDINGS`, or a hub id.
        bundled: name of the set that the package brings along.
    Raises:
        ConfigError: it is none of the three.
    """
    if source == bundled:
        return "bundled"
    if source.endswith(FILE_ENDINGS):
        return "local"
    if source.count("/") == 1 and not source.startswith((".", "/", "~")) and " " not in source:
        return "hub"
    raise ConfigError(
        f"dataset {source!r} is unknown. Allowed: {bundled!r}, the path of a file that ends in "
        f"{', '.join(FILE_ENDINGS)}, or a hub id of the form 'owner/name'."
    )


def source_rows(
    source: str, split: str, bundled: str, config: str | None = None, n_carved: int = 0
) -> Iterator[tuple[str, Row]]:
    """Yield (where, row) of a data set of any kind, see `kind_of`; of a hub's one split.

    Args:
        source: name, path or hub id.
        split: a split of the hub's.
        bundled: name of the bundled set, a file in cookbook/data.
        config: one of the hub set's configurations, where it has several.
        n_carved: if positive, "test" is the first rows of "train", shuffled with seed 0.
    Raises:
        ConfigError: the source is of no known kind.
        DataError: the file is missing or broken, or the hub can't be reached.
    """
    kind = kind_of(source, bundled)
    if kind == "bundled":
        return read_rows(Path(str(files("cookbook") / "data" / f"{bundled}.jsonl")))
    if kind == "local":
        return read_rows(Path(source))
    carve = n_carved and split in ("train", "test")
    local = f"{bundled!r} or the path of a local .jsonl, .json or .parquet file"
    rows = load_from_hub(source, "train" if carve else split, config, instead=local)
    if carve:
        shuffled = rows.shuffle(seed=0)
        bounds = (0, n_carved) if split == "test" else (n_carved, len(shuffled))
        rows = shuffled.select(range(*bounds))
    return ((f"{source} {split} row {n}", row) for n, row in enumerate(rows, start=1))


def read_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Yield ("file line n", row) of a .jsonl file, ("file row n", row) of a .json or .parquet file.

    Args:
        path: its name ends in one of `FILE_ENDINGS`; a .json file holds one list of rows.
    Raises:
        DataError: no such file, or a row that is not a JSON object.
    """
    path = path.expanduser()
    if not path.is_file():
        raise DataError(
            f"There is no file {str(path)!r}. Give the path of a {', '.join(FILE_ENDINGS)} file."
        )
    if path.suffix == ".parquet":
        return _read_parquet(path)
    content = _content(path)
    is_list = path.name.removesuffix(".gz").endswith(".json")
    return _json_rows(path.name, content) if is_list else _jsonl_rows(path.name, content)


def load_from_hub(source: str, split: str, config: str | None = None, *, instead: str) -> Any:
    """Return a split of a data set on the hub, a `datasets.Dataset`.

    Args:
        source: hub id, "owner/name".
        split: one of its splits.
        config: one of its configurations, where it has several.
        instead: what to use without a network, for the error's text.
    Raises:
        DataError: the hub can't be reached, or knows no such set, configuration or split.
    """
    import datasets

    configs = () if config is None else (config,)
    try:
        return datasets.load_dataset(source, *configs, split=split)
    except (OSError, ValueError) as error:  # unreachable hub, unknown name, unknown split
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(
            f"Cannot load {source!r}, split {split!r}, from the hub ({reason}). "
            f"Without a network use {instead}."
        ) from error


def check_conversation(messages: Any) -> Conversation:
    """Return `messages` as plain dictionaries, fields that are None left out.

    Raises:
        FieldError: not a list of {role, content}, an unknown role, content that is no valid text.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise FieldError(
            "messages",
            f"expected a list of {{role, content}}, got {shown(messages)}. Wrap text as "
            "[{'role': 'user', 'content': text}, ...], or pass to_messages=... for other rows.",
        )
    if not messages:
        raise FieldError("messages", "expected at least one message, got []. Drop the row.")
    return [_check_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _content(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise DataError(f"{path.name} cannot be unpacked: {error}. Fetch it anew.") from error


def _jsonl_rows(name: str, content: bytes) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{name} line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:  # also for bytes that are not UTF-8
            raise DataError(
                f"{where}: expected one JSON object, got {line[:60]!r} ({error}). Mend the line."
            ) from None
        yield where, _checked_object(where, row)


def _json_rows(name: str, content: bytes) -> Iterator[tuple[str, Row]]:
    try:
        rows = json.loads(content)
    except ValueError as error:
        raise DataError(f"{name}: no valid JSON ({error}). Mend it.") from None
    if not isinstance(rows, list):
        raise DataError(
            f"{name}: expected one list of rows, got {shown(rows)}. "
            "Name a file with a row on each line .jsonl instead."
        )
    for number, row in enumerate(rows, start=1):
        yield f"{name} row {number}", _checked_object(f"{name} row {number}", row)


def _checked_object(where: str, row: Any) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected one JSON object, got {shown(row)}. Mend the line.")
    return row


def _read_parquet(path: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise DataError(
            f"{path.name} is not a readable parquet file: {error}. Write it anew."
        ) from error
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"{path.name} row {number}", row


def _check_message(message: Any, field: str) -> Message:
    if not isinstance(message, Mapping):
        raise FieldError(field, f"expected {{role, content}}, got {shown(message)}.")
    role = message.get("role")
    if role not in ROLES:
        raise FieldError(
            f"{field}.role", f"expected one of {', '.join(ROLES)}, got {shown(role)}. Rename it."
        )
    check_text(message.get("content"), f"{field}.content")
    return {key: value for key, value in message.items() if value is not None}


def text_field(row: Row, field: str) -> str:
    """Return the text in a field of a row.

    Raises:
        FieldError: the field is missing, or holds no valid text.
    """
    if field not in row:
        raise FieldError(field, f"it is missing, the row has {sorted(row)}. Name the right column.")
    check_text(row[field], field)
    return row[field]


def check_text(value: Any, field: str) -> None:
    """Raise a FieldError unless `value` is valid Unicode text."""
    if not isinstance(value, str):
        raise FieldError(field, f"expected text, got {shown(value)}. Write it as a string.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise FieldError(
            field,
            f"expected Unicode text, got {value[error.start]!r} at character {error.start}, half "
            "of a surrogate pair. Export the file as UTF-8 again, or remove the character.",
        ) from None


def shown(value: Any) -> str:
    """Return a value and its type for an error's text, shortened."""
    if value is None:
        return "nothing"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
