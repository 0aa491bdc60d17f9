"""Tools that a model may call: their description, the checked call, and the environment."""

from cookbook.tools.calls import CallLimits, CallResult, Outcome, answer_calls
from cookbook.tools.env import ToolEnv
from cookbook.tools.tool import Tool, ToolError, harmless, tool_spec

__all__ = [
    "CallLimits",
    "CallResult",
    "Outcome",
    "Tool",
    "ToolEnv",
    "ToolError",
    "answer_calls",
    "harmless",
    "tool_spec",
]
