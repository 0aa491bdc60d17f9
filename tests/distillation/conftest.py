"""The fixtures of reinforcement learning: tokenizer, renderer, a fake service, the tiny engine."""

from tests.rl.conftest import (
    config,
    renderer,
    server,
    task,
    tiny_data,
    tiny_engine,
    tiny_model,
    tiny_service,
    token_renderer,
    tokenizer,
)

__all__ = [
    "config",
    "renderer",
    "server",
    "task",
    "tiny_data",
    "tiny_engine",
    "tiny_model",
    "tiny_service",
    "token_renderer",
    "tokenizer",
]
