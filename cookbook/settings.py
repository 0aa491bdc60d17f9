"""What the settings of all trainers share: checked as a whole, made from parameters, described.

A subclass is a frozen, keyword-only dataclass with a rule for each field in `RULES`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, ClassVar, Self

from cookbook.errors import ConfigError

Rule = tuple[Callable[[Any], bool], str]
"""Whether a value is allowed, and in words which ones are."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one training run.

    Raises:
        ConfigError: one or more settings are out of range; the message lists all of them.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {}

    def __post_init__(self) -> None:
        if faults := self._faults(asdict(self)):
            raise ConfigError(_listed(faults))

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Return the settings for a notebook's or command line's parameters.

        Raises:
            ConfigError: unknown names (with the nearest known ones) and all bad values, together.
        """
        defaults = {field.name: field.default for field in fields(cls)}
        known = {name: value for name, value in parameters.items() if name in defaults}
        unknown = [_unknown(name, list(defaults)) for name in parameters if name not in defaults]
        if faults := unknown + cls._faults({**defaults, **known}):
            raise ConfigError(_listed(faults))
        return cls(**known)

    def describe(self) -> None:
        """Print the settings that differ from their defaults."""
        changed = [
            f"  {field.name} = {getattr(self, field.name)!r}  (default {field.default!r})"
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]
        print("\n".join(["Settings that differ from the defaults:", *changed]))

    @classmethod
    def _faults(cls, values: Mapping[str, Any]) -> list[str]:
        return [
            f"{name} = {values[name]!r}: expected {allowed}."
            for name, (fits, allowed) in cls.RULES.items()
            if not fits(values[name])
        ]


def whole(least: int, none: bool = False) -> Rule:
    """Return the rule of a whole number of at least `least`, or None if `none`."""

    def fits(value: Any) -> bool:
        if value is None:
            return none
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    return fits, f"a whole number from {least} on" + (", or None" if none else "")


def number(least: float, example: str, most: float = math.inf) -> Rule:
    """Return the rule of a finite number of at least `least` and at most `most`."""

    def fits(value: Any) -> bool:
        real = isinstance(value, int | float) and not isinstance(value, bool)
        return real and math.isfinite(value) and least <= value <= most

    upper = "on" if most == math.inf else f"to {most:g}"
    return fits, f"a number from {least:g} {upper}, such as {example}"


def one_of(options: tuple[str, ...]) -> Rule:
    """Return the rule of one of some words."""
    return lambda value: value in options, f"one of {', '.join(options)}"


def text(allowed: str, empty: bool = False) -> Rule:
    """Return the rule of a text, described by `allowed`."""
    return lambda value: isinstance(value, str) and (empty or value != ""), allowed


def _unknown(name: str, names: list[str]) -> str:
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names)}."
    return f"{name!r} is not a setting. {hint}"


def _listed(faults: list[str]) -> str:
    count = "1 setting is" if len(faults) == 1 else f"{len(faults)} settings are"
    return "\n  ".join([f"{count} wrong:", *faults])
