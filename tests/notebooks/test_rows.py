"""Rows of "you see, likely cause" that no setting brings about: wrong or few data, made here."""

from pathlib import Path

import numpy as np
import pytest
import tinker

from cookbook import supervised
from cookbook.data import load_conversations
from cookbook.models import DEFAULT_MODEL
from cookbook.rendering import get_renderer, render_training

pytestmark = pytest.mark.slow


def trainer(service: tinker.ServiceClient, seed: int) -> tinker.TrainingClient:
    return service.create_lora_training_client(DEFAULT_MODEL, rank=16, seed=seed).result()


def test_targets_that_are_not_shifted_start_near_12(
    service: tinker.ServiceClient,
) -> None:
    """The row of `sl_loop`: the model learns to repeat the token that it reads."""
    client = trainer(service, 0)
    renderer = get_renderer(client.get_tokenizer(), DEFAULT_MODEL)
    texts = ("Rain falls from clouds.", "A seed needs water.", "Ice is cold.", "Tea is a drink.")
    data, n_trained = [], 0
    for text in texts:
        tokens, weights = render_training(
            renderer,
            [{"role": "user", "content": "Tell me."}, {"role": "assistant", "content": text}],
        )
        inputs = {"target_tokens": list(tokens), "weights": [float(w) for w in weights]}
        data.append(
            tinker.Datum(
                model_input=tinker.ModelInput.from_ints(list(tokens)), loss_fn_inputs=inputs
            )
        )
        n_trained += sum(inputs["weights"])
    nll = []
    for _ in range(9):
        done = client.forward_backward(data, "cross_entropy")
        stepped = client.optim_step(tinker.AdamParams(learning_rate=3e-3))
        nll.append(done.result().metrics["loss:sum"] / n_trained)
        stepped.result()
    assert nll[0] == pytest.approx(12, abs=2)
    assert nll[8] < 1


def test_q_shifted_by_one_shows_in_the_kl(service: tinker.ServiceClient) -> None:
    """The row of `rl_loop`: with the datum made right the same estimate is near 0."""
    client = trainer(service, 0)
    tokenizer = client.get_tokenizer()
    prompt = tokenizer.encode("Question: Why is the sky blue?\nAnswer:")
    params = tinker.SamplingParams(max_tokens=16, temperature=1.0, seed=1)
    sampler = client.save_weights_and_get_sampling_client().result()
    found = sampler.sample(tinker.ModelInput.from_ints(prompt), 8, params).result()
    data, q = [], []
    for sequence in found.sequences:
        tokens = [*prompt, *sequence.tokens]
        q.append(np.array(sequence.logprobs))
        weights = [0.0] * (len(prompt) - 1) + [1.0] * len(sequence.tokens)
        inputs = {"target_tokens": tokens[1:], "weights": weights}
        model_input = tinker.ModelInput.from_ints(tokens[:-1])
        data.append(tinker.Datum(model_input=model_input, loss_fn_inputs=inputs))
    outputs = client.forward(data, "cross_entropy").result().loss_fn_outputs
    p = [np.array(output["logprobs"].data)[len(prompt) - 1 :] for output in outputs]
    shifted = [np.concatenate([[0.0], each[:-1]]) for each in q]
    of_policy = np.concatenate(p)
    assert abs(np.mean(np.concatenate(q) - of_policy)) < 0.01
    assert abs(np.mean(np.concatenate(shifted) - of_policy)) > 0.05


def test_few_rows_again_and_again_are_learned_by_heart(
    service: tinker.ServiceClient, tmp_path: Path
) -> None:
    """The row of `chat_sl`: two conversations, ten epochs."""
    rows = load_conversations("pocket_tutor")
    config = supervised.Config(
        num_epochs=10, batch_size=2, eval_every=0, log_path=str(tmp_path / "run")
    )
    nll: list[float] = []
    examples = supervised.Examples(train=rows[:2], test=rows[2:6])
    result = supervised.train(
        config, service, lambda metrics: nll.append(metrics.get("train_mean_nll", 0.0)), examples
    )
    trained = [value for value in nll if value]  # the last call is that of the evaluation
    assert len(trained) == 10
    assert abs(trained[0] - result.before["test/nll"]) < 1
    assert trained[-1] < result.after["test/nll"] - 1.5
