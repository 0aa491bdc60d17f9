"""Calls of environments, which fail by an error or a time-out that says so."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import tinker

from cookbook.rl.env import NoTurn, Step


class EnvFailure(Exception):
    """An environment raised or took too long; the text says which."""


async def env_call(timeout_s: float, method: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    """Return what an environment's method answers within the time-out.

    Raises:
        EnvFailure: it raised, or took longer.
        NoTurn, TinkerError: as they are.
    """
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            return await method(*arguments)
    except TimeoutError as error:
        if not limit.expired():
            raise EnvFailure(why_failed(error)) from error
        raise EnvFailure(f"timeout: no answer within {timeout_s:g} s") from error
    except (NoTurn, tinker.TinkerError):
        raise  # a judge or an opponent that is no longer served fails every episode
    except Exception as error:
        raise EnvFailure(why_failed(error)) from error


def checked_step(step: Any) -> Step:
    """Return the step with plain numbers; a bad one is its environment's failure, not the run's."""
    if not isinstance(step, Step):
        raise EnvFailure(f"error: step returned {step!r:.80}, expected a Step")
    metrics = {
        name: finite_number(f"metric {name!r}", value) for name, value in step.metrics.items()
    }
    return replace(step, reward=finite_number("reward", step.reward), metrics=metrics)


def finite_number(what: str, value: Any) -> float:
    """Return the value as a float.

    Raises:
        EnvFailure: it is not a finite number; the text calls it `what`.
    """
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise EnvFailure(f"error: {what} is {value!r:.80}, expected a finite number")
    return found


def why_failed(error: Exception) -> str:
    """Return the text of a failure by an exception."""
    return f"error: {type(error).__name__}: {error}"
