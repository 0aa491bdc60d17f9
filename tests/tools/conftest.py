"""The real tokenizer and its renderer."""

from tests.rl.conftest import renderer, tokenizer

__all__ = ["renderer", "tokenizer"]
