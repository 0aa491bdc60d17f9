"""The fixtures of reinforcement learning: tokenizer, renderer, a fake service, the tiny engine."""

from tests.engine.conftest import new_run, tiny_checkpoints
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
    "new_run",
    "renderer",
    "server",
    "task",
    "tiny_checkpoints",
    "tiny_data",
    "tiny_engine",
    "tiny_model",
    "tiny_service",
    "token_renderer",
    "tokenizer",
]
