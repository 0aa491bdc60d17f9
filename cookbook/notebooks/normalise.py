"""Make an executed notebook the same on every machine: no run-time metadata, no private paths."""

import re
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cookbook.home import cookbook_home
from cookbook.notebooks.stamp import PACKAGE

PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_VOLATILE_CELL = ("execution", "papermill", "collapsed", "scrolled", "ExecuteTime")
_VOLATILE = ("widgets", "papermill", "toc", "vscode")


def normalise(notebook: Any) -> None:
    """Drop what differs from run to run and replace private paths, hosts, ports and keys.

    Paths inside the repository become relative, the model cache ``$COOKBOOK_HOME``, the home folder
    ``~`` and the system's temporary folder ``/tmp``.
    """
    notebook.cells = [cell for cell in notebook.cells if cell.source.strip()]
    for key in _VOLATILE:
        notebook.metadata.pop(key, None)
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata["language_info"] = {"name": "python"}
    redact = redactor(_private_paths())
    for cell in notebook.cells:
        for key in _VOLATILE_CELL:
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = merge_streams(cell.outputs)
            for output in cell.outputs:
                _redact_output(output, redact)


def merge_streams(outputs: list[Any]) -> list[Any]:
    """Join neighbouring pieces of one stream and keep what a terminal would show of each line."""
    merged: list[Any] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if output.output_type != "stream" or last is None or last.get("name") != output.name:
            merged.append(output)
        else:
            last.text += output.text
    for output in merged:
        if output.output_type == "stream":
            output.text = "\n".join(_last_state(line) for line in output.text.split("\n"))
    return merged


def _last_state(line: str) -> str:
    return line.rstrip("\r").rsplit("\r", 1)[-1]


def redactor(paths: list[tuple[Path, str]]) -> Callable[[str], str]:
    """Return a function that hides paths, host and user names, local ports and keys.

    Args:
        paths: path and what stands in its place, inner paths before the ones that contain them.
    """
    rules = [rule for path, name in paths for rule in _path_rules(path, name)]
    host = socket.gethostname()
    if re.search(r"[\d.-]", host):  # else it is a word that other texts may hold too
        rules.append((rf"\b{re.escape(host)}\b", "localhost"))
    user = re.escape(Path.home().name)
    if user:
        rules.append((rf"(?<=[/\\]){user}(?=[/\\])", "user"))
    rules += [
        (r"(127\.0\.0\.1|localhost|\[::1\]):\d+", r"\1:PORT"),
        (r"(?<![A-Za-z])tml-[\w-]{4,}", "tml-KEY"),
        (r"\S*ipykernel_\d+[/\\]\d+\.py", "<cell>"),
    ]
    compiled = [(re.compile(pattern), name) for pattern, name in rules]

    def redact(text: str) -> str:
        for pattern, name in compiled:
            text = pattern.sub(name, text)
        return text

    return redact


def _private_paths() -> list[tuple[Path, str]]:
    """This machine's folders, the ones inside others first, with what is written instead."""
    paths = [
        (PACKAGE.parent, "."),
        (cookbook_home(), "$COOKBOOK_HOME"),
        (Path(sys.prefix), "<python>"),
        (Path.home(), "~"),
    ]
    if Path(tempfile.gettempdir()) != Path("/tmp"):
        paths.append((Path(tempfile.gettempdir()), "/tmp"))
    return [(path, name) for path, name in paths if len(path.parts) > 1]


def _path_rules(path: Path, name: str) -> list[tuple[str, str]]:
    """Patterns for a path as given, with links resolved, and with escaped backslashes."""
    forms = {str(path), str(path.resolve())}
    forms |= {form.replace("\\", "\\\\") for form in forms}
    ordered = sorted(forms, key=len, reverse=True)
    # A file inside the repository is told without a leading "./".
    inner = [(rf"{re.escape(form)}[/\\]+(?=\w)", "") for form in ordered if name == "."]
    return inner + [(rf"{re.escape(form)}(?![\w-])", name) for form in ordered]


def _redact_output(output: Any, redact: Callable[[str], str]) -> None:
    """Rewrite the texts of one output in place; pictures stay as they are."""
    for key in ("text", "evalue"):
        if isinstance(output.get(key), str):
            output[key] = redact(output[key])
    if "traceback" in output:
        output["traceback"] = [redact(line) for line in output["traceback"]]
    for field in ("data", "metadata"):
        if field in output:
            output[field] = _redacted(output[field], redact)


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:
    """Return the JSON value with each string redacted, except the bytes of pictures."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [_redacted(item, redact) for item in value]
    if isinstance(value, dict):
        return {
            key: item if key in PICTURES and isinstance(item, str) else _redacted(item, redact)
            for key, item in value.items()
        }
    return value
