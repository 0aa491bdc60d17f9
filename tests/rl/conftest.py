"""Fixtures of the tests of reinforcement learning: the real tokenizer, and the tiny engine."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from cookbook.models import DEFAULT_MODEL
from cookbook.rendering import get_renderer
from cookbook.rl import Config, Task
from tests.engine.conftest import tiny_data, tiny_engine, tiny_model, tiny_service
from tests.rl.fakes import Service, TokenRenderer
from tests.rl.runs import N_STEPS, G, P, guess

__all__ = ["tiny_data", "tiny_engine", "tiny_model", "tiny_service"]


@pytest.fixture(scope="session")
def tokenizer(model_dir: Path) -> Any:
    return AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture(scope="session")
def renderer(tokenizer: Any) -> Any:
    return get_renderer(tokenizer, DEFAULT_MODEL)


@pytest.fixture
def token_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the trainer write texts as token numbers."""
    monkeypatch.setattr("cookbook.rl.trainer.get_renderer", lambda *_: TokenRenderer())


@pytest.fixture
def server(token_renderer: None) -> Service:
    return Service()


@pytest.fixture
def task() -> Task:
    """6 problems: 3 steps of 2 are an epoch; held out are 2 others."""
    return Task("guess", [guess(n, "ab"[n % 2]) for n in range(20, 26)], [guess(30), guess(31)])


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        dataset="guess",
        learning_rate=1e-2,
        prompts_per_step=P,
        group_size=G,
        max_steps=N_STEPS,
        test_samples=3,
        eval_every=2,
        save_every=2,
        seed=5,
        log_path=str(tmp_path / "run"),
    )
