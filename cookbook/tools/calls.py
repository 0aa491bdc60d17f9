"""The calls of one reply: checked, made at the same time, answered in their order."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError
from renderers import ParsedToolCall

from cookbook.rows import Message
from cookbook.tools.tool import Tool, ToolError, harmless

Outcome = Literal["ok", "unknown_tool", "bad_arguments", "error", "timeout", "too_many"]


@dataclass(frozen=True, kw_only=True)
class CallLimits:
    """What the calls of one reply may cost."""

    timeout_s: float = 10.0
    """Longest one call may take; then the model reads that it took too long."""
    max_calls: int = 4
    """Calls in one reply; those beyond are not made, and the model reads so."""
    max_chars: int = 2000
    """Longest result; the rest is cut off."""


@dataclass(frozen=True, kw_only=True)
class CallResult:
    """What became of one call."""

    outcome: Outcome
    message: Message
    """What the model reads: role "tool", the tool's name and the result or what went wrong."""


async def answer_calls(
    tools: Sequence[Tool], calls: Sequence[ParsedToolCall], limits: CallLimits
) -> list[CallResult]:
    """Return a result for every call, in their order; the calls are made at the same time.

    Args:
        tools: what may be called.
        calls: well-formed ones; their arguments are checked here, against the tool's schema.
        limits: of time, number and length.
    """
    known = {tool.name: tool for tool in tools}
    made = [_made(known, call, limits) for call in calls[: limits.max_calls]]
    answers: list[tuple[Outcome, str]] = list(await asyncio.gather(*made))
    told = f"not called: at most {limits.max_calls} calls in one reply"
    too_many: tuple[Outcome, str] = ("too_many", told)
    answers += [too_many] * (len(calls) - len(answers))
    return [
        _result(call, outcome, text, limits.max_chars)
        for call, (outcome, text) in zip(calls, answers, strict=True)
    ]


async def _made(
    known: dict[str, Tool], call: ParsedToolCall, limits: CallLimits
) -> tuple[Outcome, str]:
    tool = known.get(call.name or "")
    if tool is None:
        return "unknown_tool", f"there is no such tool. Known: {', '.join(known)}"
    try:
        arguments = tool.arguments.model_validate(call.arguments, strict=True)
    except ValidationError as error:
        return "bad_arguments", _faults(error)
    limit = asyncio.timeout(limits.timeout_s)
    try:
        async with limit:
            return "ok", await tool.call(arguments)
    except ToolError as error:
        return "error", str(error)
    except TimeoutError:
        if limit.expired():
            return "timeout", f"no answer within {limits.timeout_s:g} s"
        raise


def _faults(error: ValidationError) -> str:
    """Say what is wrong with the arguments, without repeating them."""
    found = [
        f"{'.'.join(map(str, fault['loc'])) or 'arguments'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    return "; ".join(found[:3])


def _result(call: ParsedToolCall, outcome: Outcome, text: str, max_chars: int) -> CallResult:
    content = text if outcome == "ok" else f"Error: {text}"
    message: dict[str, Any] = {"role": "tool", "content": harmless(content, max_chars)}
    if call.name:
        message["name"] = harmless(call.name, 64)
    if call.id:
        message["tool_call_id"] = call.id
    return CallResult(outcome=outcome, message=message)
