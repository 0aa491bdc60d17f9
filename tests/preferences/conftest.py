import json

import pytest
from transformers import AutoTokenizer

from cookbook.models import DEFAULT_MODEL
from cookbook.preferences import Comparison, Config
from cookbook.rendering import get_renderer
from tests.fake_training import Server

N_ROWS, N_TEST = 11, 3


@pytest.fixture(scope="module")
def tokenizer(model_dir):
    return AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture(scope="module")
def renderer(tokenizer):
    return get_renderer(tokenizer, DEFAULT_MODEL)


@pytest.fixture
def server(tokenizer):
    return Server(tokenizer)


@pytest.fixture
def comparison():
    """One with two earlier turns and a system message."""
    return Comparison(
        prompt=[
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "What is a prime?"},
            {"role": "assistant", "content": "A number with two divisors."},
            {"role": "user", "content": "Is 9 one?"},
        ],
        answer_a="No. What divides it?",
        answer_b="No, since three times three makes nine.",
        label="A",
    )


@pytest.fixture
def config(tmp_path):
    """8 pairs to train on in 2 epochs of 3 + 3 + 2: 6 steps."""
    rows = [
        {"prompt": f"question {i}?", "chosen": f"yes {i}", "rejected": f"no {i} " * (i + 1)}
        for i in range(N_ROWS)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    return Config(
        dataset=str(data),
        n_test=N_TEST,
        batch_size=3,
        num_epochs=2,
        learning_rate=1e-2,
        eval_every=2,
        save_every=2,
        seed=5,
        log_path=str(tmp_path / "run"),
    )
