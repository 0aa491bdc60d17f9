"""Fixtures of the tests of reinforcement learning: the real tokenizer, and the tiny engine."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from cookbook.models import DEFAULT_MODEL
from cookbook.rendering import get_renderer
from tests.engine.conftest import tiny_data, tiny_engine, tiny_model, tiny_service

__all__ = ["tiny_data", "tiny_engine", "tiny_model", "tiny_service"]


@pytest.fixture(scope="session")
def tokenizer(model_dir: Path) -> Any:
    return AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture(scope="session")
def renderer(tokenizer: Any) -> Any:
    return get_renderer(tokenizer, DEFAULT_MODEL)
