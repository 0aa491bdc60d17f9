"""Tools in plain ChatML: how SmolLM2 is told of them and how it calls them.

The chat template has no place for tools and the vocabulary no token for a call, so both are plain
text, in the layout documented for the family (SmolLM2-1.7B-Instruct, "function calling"; our words
around it are fewer):

    system     <tools>[{"name": ..., "description": ..., "parameters": ...}]</tools>
    assistant  <tool_call>[{"name": "search", "arguments": {"query": "..."}}]</tool_call>

One block holds any number of calls. `cookbook.chatml.ChatMLRenderer` uses this module.
"""

import json
from collections.abc import Sequence
from typing import Any

from renderers import ParsedToolCall, ToolCallParseStatus, ToolSpec
from renderers.tagged import TaggedGrammar, TaggedToolBlock, scan_tagged_response

from cookbook.errors import DataError

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_GRAMMAR = TaggedGrammar(
    {("content", "tool_start"): "tool", ("tool", "tool_end"): "content"},
    {_OPEN: "tool_start", _CLOSE: "tool_end"},
)


def tools_text(tools: Sequence[ToolSpec]) -> str:
    """Return what the system message says about the tools."""
    return (
        f"You can call tools:\n<tools>{json.dumps(list(tools), ensure_ascii=False)}</tools>\n"
        "To call them, reply with nothing but a list of calls:\n"
        f'{_OPEN}[{{"name": "...", "arguments": {{...}}}}]{_CLOSE}'
    )


def calls_text(calls: Sequence[Any]) -> str:
    """Return an assistant's calls ({"function": {"name", "arguments"}} each) as it writes them.

    Raises:
        DataError: a call without a name or without arguments.
    """
    written = ", ".join(_call_text(call) for call in calls)
    return f"{_OPEN}[{written}]{_CLOSE}"


def parse_calls(tokenizer: Any, token_ids: list[int]) -> tuple[str, list[ParsedToolCall]]:
    """Return the text around the calls, and every attempt at a call, in order.

    A block holds a list of calls, or a single one. A broken block is one attempt whose status says
    what is wrong; in a list every element has a status of its own.

    Args:
        tokenizer: of the model.
        token_ids: a reply (T,) without its stop token.
    """
    found = scan_tagged_response(
        tokenizer, token_ids, thinking=False, atomic_markers={}, grammar=_GRAMMAR
    )
    return found.content, [call for block in found.tools for call in _calls_of(block)]


def _call_text(call: Any) -> str:
    function = call.get("function", call) if isinstance(call, dict) else {}
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or arguments is None:
        raise DataError(
            "field 'tool_calls': expected {'function': {'name': ..., 'arguments': {...}}} for each "
            f"call, got {call!r:.80}."
        )
    if not isinstance(arguments, str):  # else it is JSON already
        arguments = json.dumps(arguments, ensure_ascii=False)
    return f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {arguments}}}'


def _calls_of(block: TaggedToolBlock) -> list[ParsedToolCall]:
    body = block.text.removeprefix(_OPEN).removesuffix(_CLOSE).strip()
    attempt = {"raw": body, "token_span": block.token_span}
    if not block.closed:
        return [ParsedToolCall(**attempt, status=ToolCallParseStatus.UNCLOSED_BLOCK)]
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):  # a reply may nest brackets deeper than Python goes
        return [ParsedToolCall(**attempt, status=ToolCallParseStatus.INVALID_JSON)]
    items = parsed if isinstance(parsed, list) else [parsed]
    return [_parsed(item, attempt) for item in items]


def _parsed(item: Any, attempt: dict[str, Any]) -> ParsedToolCall:
    if not isinstance(item, dict):
        return ParsedToolCall(**attempt, status=ToolCallParseStatus.MALFORMED_STRUCTURE)
    name, arguments = item.get("name"), item.get("arguments", {})
    if not isinstance(name, str) or not name:
        status = ToolCallParseStatus.MISSING_NAME
        return ParsedToolCall(**attempt, arguments=arguments, status=status)
    return ParsedToolCall(**attempt, name=name, arguments=arguments)
