"""The errors this package raises on purpose.

Each class is also the built-in that fits best, so `except ValueError` keeps working. A message says
what was wrong, the value seen, what is allowed, and what to do.
"""


class CookbookError(Exception):
    """Base of every error the package raises on purpose."""


class ConfigError(CookbookError, ValueError):
    """A setting is missing, misspelt, out of range, or does not fit the run it is meant for."""


class DataError(CookbookError, ValueError):
    """A file or row of data is not what it should be; the message names file, line and field."""


class ServiceError(CookbookError, RuntimeError):
    """The server that trains and samples cannot be reached, refused, or died."""


class ModelError(CookbookError, RuntimeError):
    """The weights or the tokenizer of a model cannot be fetched, converted or loaded."""
