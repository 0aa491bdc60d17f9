from dataclasses import asdict

import pytest

from cookbook.errors import ConfigError
from cookbook.models import (
    DEFAULT_MODEL,
    MODELS,
    UncalibratedError,
    get_defaults,
    get_lr,
    model_info,
)
from cookbook.supervised import Config


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen/Qwen3.5-4B", 4.905e-4),
        ("Qwen/Qwen3.5-9B", 4.730e-4),
        ("Qwen/Qwen3-32B", 4.649e-4),
        ("Qwen/Qwen3-30B-A3B", 4.991e-4),
        ("meta-llama/Llama-3.2-1B-Instruct", 4.908e-4),
        ("meta-llama/Llama-3.2-3B-Instruct", 3.576e-4),
        ("meta-llama/Llama-3.1-8B-Instruct", 2.856e-4),
        ("meta-llama/Llama-3.3-70B-Instruct", 1.662e-4),
    ],
)
def test_published_learning_rates(name, expected):
    assert get_lr(name) == pytest.approx(expected, rel=2e-4)
    assert get_lr(name, is_lora=False) == pytest.approx(expected / 10, rel=2e-4)


@pytest.mark.parametrize("name", [DEFAULT_MODEL, "openai/gpt-oss-20b", "moonshotai/Kimi-K2.6"])
def test_families_without_a_rule(name):
    with pytest.raises(UncalibratedError, match=r"No learning rate rule for .*llama and qwen"):
        get_lr(name)
    assert issubclass(UncalibratedError, ConfigError)
    assert issubclass(UncalibratedError, NotImplementedError)


def test_unknown_model_names_the_nearest():
    with pytest.raises(ConfigError, match=r"Unknown model 'Qwen/Qwen3.5-5B'.*Qwen/Qwen3.5-4B"):
        get_lr("Qwen/Qwen3.5-5B")
    with pytest.raises(ConfigError, match=r"cookbook\.models\.MODELS"):
        model_info("zzz")


def test_defaults():
    bundled, config = get_defaults(DEFAULT_MODEL), Config()
    assert all(getattr(config, name) == value for name, value in asdict(bundled).items())
    hosted = get_defaults("Qwen/Qwen3.5-9B")
    assert (hosted.lora_rank, hosted.batch_size) == (32, 128)
    assert hosted.learning_rate == get_lr("Qwen/Qwen3.5-9B")


def test_table():
    assert DEFAULT_MODEL in MODELS
    assert all(name.count("/") == 1 and info.hidden_size > 100 for name, info in MODELS.items())
