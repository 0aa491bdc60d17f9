"""The stamp that says which code a notebook's outputs came from.

It lives in the notebook's metadata under the key ``cookbook``. The cells hash covers code only, so
that editing prose never asks for a new run; the package hash covers every module the notebook
reaches, the engine included when it connects to a server.
"""

import ast
import hashlib
import json
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

KEY = "cookbook"
PACKAGE = Path(__file__).resolve().parents[1]
VERSIONED = ("tinker", "torch", "transformers", "renderers", "numpy")


def code_cells(notebook: Any) -> list[Any]:
    """Return the notebook's code cells in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell: Any) -> list[str]:
    """Return a cell's tags."""
    return list(cell.metadata.get("tags", []))


def tagged(notebook: Any, tag: str) -> list[Any]:
    """Return the cells that carry ``tag``."""
    return [cell for cell in notebook.cells if tag in tags(cell)]


def cells_hash(notebook: Any) -> str:
    """Return the hash of the code cells, parameters included (16 hexadecimal digits)."""
    sources = [cell.source.rstrip() for cell in code_cells(notebook)]
    return _digest([json.dumps(sources).encode()])


def package_hash(notebook: Any) -> str:
    """Return the hash of the package's files that the notebook's code reaches."""
    names = set[str]()
    for cell in code_cells(notebook):
        names.update(_imported(cell.source))
    files = sorted(reached_files(names))
    return _digest(
        [part for file in files for part in (_relative(file).encode(), file.read_bytes())]
    )


def reached_files(names: set[str]) -> set[Path]:
    """Return the package's files behind the dotted ``names``, with all that these import.

    A folder of data beside a module of the same name (``data/`` beside ``data.py``) belongs to that
    module; the engine belongs to ``service``, which starts it without importing it.
    """
    found = set[Path]()
    waiting = set(names)
    while waiting:
        for file in _files_of(waiting.pop()) - found:
            found.add(file)
            if file.suffix == ".py":
                waiting.update(_imported(file.read_text(encoding="utf-8")))
            if file == PACKAGE / "service.py":
                waiting.update(_module_name(path) for path in (PACKAGE / "engine").glob("*.py"))
    return found


def claims(notebook: Any) -> dict[str, Any] | None:
    """Return the numbers that the ``claims`` cell printed: its last line of output, as JSON.

    None if there is no such cell or its last line is not a JSON object.
    """
    for cell in tagged(notebook, "claims"):
        text = "".join(o.text for o in cell.outputs if o.get("name") == "stdout")
        try:
            value = json.loads(text.strip().splitlines()[-1])
        except (IndexError, ValueError):
            return None
        return value if isinstance(value, dict) else None
    return None


def make_stamp(notebook: Any, seconds: float, date: str) -> dict[str, Any]:
    """Return the stamp of a notebook that has just been executed in ``seconds``."""
    return {
        "cells_hash": cells_hash(notebook),
        "package_hash": package_hash(notebook),
        "versions": {"python": platform.python_version(), **_versions()},
        "seconds": round(seconds, 1),
        "date": date,
        "claims": claims(notebook),
    }


def is_current(notebook: Any) -> bool:
    """Return whether its outputs come from its code cells and the package as they are now."""
    told = notebook.metadata.get(KEY, {})
    now = (cells_hash(notebook), package_hash(notebook))
    return (told.get("cells_hash"), told.get("package_hash")) == now


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _imported(source: str) -> Iterator[str]:
    """Yield the dotted names of this package that the source imports, anywhere in it."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a cell with IPython's own syntax
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == PACKAGE.name)


def _files_of(name: str) -> set[Path]:
    """Return the files behind a dotted name; a name inside a module has none of its own."""
    files = set[Path]()
    folder = PACKAGE.parent
    for part in name.split("."):
        module, package = folder / f"{part}.py", folder / part / "__init__.py"
        files.update(path for path in (module, package) if path.is_file())
        folder /= part
        if module.is_file() and folder.is_dir():
            files.update(path for path in folder.iterdir() if path.is_file())
    return files


def _module_name(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)


def _relative(file: Path) -> str:
    return file.relative_to(PACKAGE.parent).as_posix()


def _digest(parts: list[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]
