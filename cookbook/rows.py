"""One row of a data set becomes one checked conversation; reading rows from files.

A bad row is an error that names file, line and field, shows the value and says what to do.
"""

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


class FieldError(DataError):
    """A field of one row is wrong; the loader adds file and line to it."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"field {field!r}: {text}")


def kind_of(source: str, bundled: str) -> Literal["bundled", "local", "hub"]:
    """Return where the data set `source` comes from.

    Args:
        source: `bundled`, a path ending in .jsonl or .parquet, or a hub id.
        bundled: name of the set that the package brings along.
    Raises:
        ConfigError: it is none of the three.
    """
    if source == bundled:
        return "bundled"
    if source.endswith((".jsonl", ".parquet")):
        return "local"
    if source.count("/") == 1 and not source.startswith((".", "/", "~")) and " " not in source:
        return "hub"
    raise ConfigError(
        f"dataset {source!r} is unknown. Allowed: {bundled!r}, the path of a .jsonl or .parquet "
        "file, or a hub id of the form 'owner/name'."
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
    local = f"{bundled!r} or the path of a local .jsonl or .parquet file"
    rows = load_from_hub(source, "train" if carve else split, config, instead=local)
    if carve:
        shuffled = rows.shuffle(seed=0)
        bounds = (0, n_carved) if split == "test" else (n_carved, len(shuffled))
        rows = shuffled.select(range(*bounds))
    return ((f"{source} {split} row {n}", row) for n, row in enumerate(rows, start=1))


def read_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Yield ("file line n", row) of a .jsonl file, ("file row n", row) of a .parquet file.

    Raises:
        DataError: no such file, or a line that is not a JSON object.
    """
    path = path.expanduser()
    if not path.is_file():
        raise DataError(
            f"There is no file {str(path)!r}. Give the path of a .jsonl or .parquet file."
        )
    return _read_parquet(path) if path.suffix == ".parquet" else _read_jsonl(path)


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
            f"expected a list of {{role, content}}, got {_shown(messages)}. Wrap text as "
            "[{'role': 'user', 'content': text}, ...], or pass to_messages=... for other rows.",
        )
    if not messages:
        raise FieldError("messages", "expected at least one message, got []. Drop the row.")
    return [_check_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def standard_messages(row: Row) -> Any:
    """Return the messages of a row with "messages", or with "prompt" and "completion"."""
    if "messages" in row:
        return row["messages"]
    if "prompt" in row and "completion" in row:
        return prompt_and_answer("prompt", "completion")(row)
    raise FieldError(
        "messages",
        f"it is missing, the row has {sorted(row)}. Rename the column, or pass "
        "to_messages=prompt_and_answer(prompt_field, answer_field).",
    )


def prompt_and_answer(prompt_field: str, answer_field: str) -> RowMapper:
    """Return a row mapper: one user turn and one assistant turn out of two text fields.

    Example:
        >>> prompt_and_answer("q", "a")({"q": "2 + 3?", "a": "5"})[1]
        {'role': 'assistant', 'content': '5'}
    """

    def to_messages(row: Row) -> Conversation:
        return [
            {"role": "user", "content": text_field(row, prompt_field)},
            {"role": "assistant", "content": text_field(row, answer_field)},
        ]

    return to_messages


def reasoning_messages(row: Row) -> Conversation:
    """Return question and answer of an s1K row, the reasoning in <think> tags before the answer.

    Reads both versions: s1K ("thinking_trajectories", "attempt") and s1K-1.1 (DeepSeek's columns).
    The tags are plain text: renderers with a reasoning slot fill it from them, others keep them.
    """
    if "deepseek_thinking_trajectory" in row:
        thinking, answer = (
            text_field(row, "deepseek_thinking_trajectory"),
            text_field(row, "deepseek_attempt"),
        )
    else:
        trajectories = row.get("thinking_trajectories")
        if not isinstance(trajectories, Sequence) or not trajectories:
            raise FieldError(
                "thinking_trajectories", f"expected a list of texts, got {_shown(trajectories)}."
            )
        thinking, answer = trajectories[0], text_field(row, "attempt")
    content = f"<think>\n{thinking.strip()}\n</think>\n\n{answer.strip()}"
    question = {"role": "user", "content": text_field(row, "question")}
    return [question, {"role": "assistant", "content": content}]


def _read_jsonl(path: Path) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path.name} line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:  # also for bytes that are not UTF-8
            raise DataError(
                f"{where}: expected one JSON object, got {line[:60]!r} ({error}). Mend the line."
            ) from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected one JSON object, got {_shown(row)}. Mend the line.")
        yield where, row


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
        raise FieldError(field, f"expected {{role, content}}, got {_shown(message)}.")
    role = message.get("role")
    if role not in ROLES:
        raise FieldError(
            f"{field}.role", f"expected one of {', '.join(ROLES)}, got {_shown(role)}. Rename it."
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
        raise FieldError(field, f"expected text, got {_shown(value)}. Write it as a string.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise FieldError(
            field,
            f"expected Unicode text, got {value[error.start]!r} at character {error.start}, half "
            "of a surrogate pair. Export the file as UTF-8 again, or remove the character.",
        ) from None


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
