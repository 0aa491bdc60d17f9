"""A notebook's parameters from outside: found, read and checked before anything starts."""

import ast
import contextlib
import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from cookbook.errors import ConfigError
from cookbook.notebooks.guard import refuse_unknown
from cookbook.runlog.log import WANDB_VARIABLE

BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
TYPES = {"bool": bool, "int": int, "float": float, "str": str}
WANDB = "wandb_project"


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's ``parameters`` cell: its type's name and whether None is allowed."""

    type_name: str
    may_be_none: bool


def find_notebook(name: str) -> Path:
    """Return the notebook's path: ``name`` itself, or looked for in ``notebooks/``.

    Raises:
        ConfigError: there is none; the text names the nearest one and all there are.
    """
    if Path(name).is_file():
        return Path(name)
    folders = (Path("notebooks"), Path(__file__).parents[1] / "notebooks")
    found = {path.stem: path for folder in reversed(folders) for path in folder.glob("*.ipynb")}
    stem = Path(name).name.removesuffix(".ipynb")
    if stem in found:
        return found[stem]
    nearest = difflib.get_close_matches(stem, found, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ConfigError(
        f"There is no notebook {name!r}.{hint} Known: {', '.join(sorted(found)) or 'none here'}."
    )


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """Return what the notebook's cell tagged ``parameters`` defines, by name, in its order."""
    cells = nbformat.read(notebook, as_version=4).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    statements = ast.parse(tagged[0].source).body if tagged else []
    found = {}
    for line in statements:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value:
            found[line.target.id] = _parameter(line.value, ast.unparse(line.annotation))
        elif isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            found[line.targets[0].id] = _parameter(line.value, "")
    return found


def _parameter(value: ast.expr, annotation: str) -> Parameter:
    default = ast.literal_eval(value)
    options = [part.strip() for part in annotation.split("|")] if annotation else []
    named = [option for option in options if option in TYPES]
    type_name = named[0] if named else type(default).__name__
    return Parameter(type_name, may_be_none=default is None or "None" in options)


def parse_assignments(assignments: Sequence[str], known: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return the values of ``key=value`` pairs, each in its parameter's type.

    Raises:
        ConfigError: a pair without ``=``, an unknown name (with the nearest valid one), or values
            that cannot be read, all of them in one text.
    """
    pairs = [assignment.partition("=") for assignment in assignments]
    if bad := [key for key, sign, _ in pairs if not sign]:
        raise ConfigError(
            f"Parameters are given as key=value, got {' '.join(bad)!r}. "
            f"Valid parameters: {', '.join(known)}."
        )
    refuse_unknown([key for key, _, _ in pairs], list(known))
    values, faults = {}, []
    for key, _, text in pairs:
        try:
            values[key] = read_value(text, known[key])
        except ValueError:
            faults.append(f"{key}={text}: expected {known[key].type_name}")
    if faults:
        raise ConfigError(f"Bad value: {'; '.join(faults)}.")
    return values


def read_value(text: str, parameter: Parameter) -> Any:
    """Return `text` in the parameter's type; ValueError if it cannot be read as one."""
    if parameter.may_be_none and text in ("None", "none", ""):
        return None
    if parameter.type_name == "bool":
        if text.lower() not in BOOLEANS:
            raise ValueError(text)
        return BOOLEANS[text.lower()]
    return TYPES.get(parameter.type_name, str)(text)


def with_wandb(known: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Return `known` and `wandb_project`, which works for every notebook (see `tracked`)."""
    return {**known, WANDB: known.get(WANDB, Parameter("str", may_be_none=False))}


@contextlib.contextmanager
def tracked(parameters: dict[str, Any], known: Mapping[str, Parameter]) -> Iterator[None]:
    """Hand `wandb_project` over as a variable where the notebook has no parameter of that name.

    It is taken out of `parameters` then; runs that start in the block, kernels included, see it.
    """
    if WANDB in known or WANDB not in parameters:
        yield
        return
    before = os.environ.get(WANDB_VARIABLE)
    os.environ[WANDB_VARIABLE] = parameters.pop(WANDB)
    try:
        yield
    finally:
        del os.environ[WANDB_VARIABLE]
        if before is not None:
            os.environ[WANDB_VARIABLE] = before
