"""What a tool is, and how a model is told of it."""

import re
from typing import Any, Protocol

from pydantic import BaseModel
from renderers import ToolSpec

from cookbook.errors import CookbookError


class ToolError(CookbookError, RuntimeError):
    """Raised by a tool that cannot answer; the model reads the text."""


class Tool(Protocol):
    """Something a model may call. Its arguments are data: nothing in them is ever executed."""

    @property
    def name(self) -> str:
        """What the model calls it."""
        ...

    @property
    def description(self) -> str:
        """What it is for, in few words: the model reads it in every episode."""
        ...

    @property
    def arguments(self) -> type[BaseModel]:
        """The arguments with their types and bounds; a call that does not fit never gets here."""
        ...

    async def call(self, arguments: Any) -> str:
        """Return what the model reads next; `arguments` are an instance of the class above.

        Raises:
            ToolError: with a text for the model.
        """
        ...


def tool_spec(tool: Tool) -> ToolSpec:
    """Return the tool's description as renderers lay it out: name, purpose and JSON schema."""
    schema = _without_titles(tool.arguments.model_json_schema())
    schema.pop("description", None)  # the class's docstring: for us, not for the model
    return ToolSpec(name=tool.name, description=tool.description, parameters=schema)


def harmless(text: str, max_chars: int) -> str:
    """Return a text that cannot be taken for a control token or a tool call, cut to a length.

    Everything of the form `<word>`, `</word>` or `<|word|>` gets square brackets: a renderer turns
    a literal `<|im_end|>` into the token that ends a turn. Characters that are not valid Unicode
    become question marks.
    """
    valid = text.encode("utf-8", "replace").decode()
    plain = re.sub(r"<(/?\|?[^<>\s]{1,40})>", r"[\1]", valid)
    return plain if len(plain) <= max_chars else plain[: max_chars - 1] + "…"


def _without_titles(schema: Any) -> Any:
    """Drop the titles that pydantic makes of the names: every word is read in every episode."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _without_titles(part) for name, part in value.items()}
        if key in ("properties", "$defs")
        else _without_titles(value)
        for key, value in schema.items()
        if key != "title" or not isinstance(value, str)
    }
