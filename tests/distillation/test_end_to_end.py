"""A tiny student comes nearer to a tiny teacher, through a real engine, in all three ways."""

from dataclasses import replace

import numpy as np
import pytest
import tinker

from cookbook import supervised
from cookbook.distillation import ReverseKL, Teacher, soft_datum, soft_targets
from cookbook.rl import Config, Player, Step, Task, episode_rows, play, train
from cookbook.runlog import read_metrics
from tests.rl.fakes import STOP, TokenRenderer, problem, user

ANSWERS = {"5 9": [20, 21, STOP], "6 9": [30, 31, STOP]}


class Ask:
    """Asks and never rewards."""

    def __init__(self, question):
        self.question = question

    async def start(self):
        return [user(self.question)]

    async def step(self, reply):
        return Step()


PROBLEMS = [problem(text, lambda text=text: Ask(text)) for text in ANSWERS]


@pytest.fixture(scope="module")
def teacher(tiny_service, tiny_model) -> str:
    """The sampler path of a model that mostly gives the answers above, and sometimes others."""
    run = tiny_service.create_lora_training_client(str(tiny_model), rank=4, seed=1).result()
    data = []
    for question, tokens in ANSWERS.items():
        prompt = TokenRenderer().render_ids([user(question)])
        weights = [0] * len(prompt) + [1] * len(tokens)
        data.append(supervised.datum_from_tokens([*prompt, *tokens], weights))
    for _ in range(30):
        loss = supervised.train_step(run, data, 0.03)["train_mean_nll"]
    assert loss < 1
    return run.save_weights_for_sampler("teacher").result().path


def reverse_kl(tiny_service, teacher, student) -> float:
    """Nats per token, on samples of the student."""
    samplers = [
        tiny_service.create_sampling_client(model_path=p).result() for p in (teacher, student)
    ]
    player = Player(renderer=TokenRenderer(), max_tokens=4)
    groups = play(player, samplers[1], PROBLEMS, 32, "measure")
    rows = [row for g in groups for e in g.episodes for row in episode_rows(e, 0.0)]
    pending = [
        samplers[0].compute_logprobs(tinker.ModelInput.from_ints(row.tokens.tolist()))
        for row in rows
    ]
    scores = [np.array([0.0, *future.result()[1:]]) for future in pending]
    return float(
        np.concatenate(
            [(r.logprobs - s)[r.sampled] for r, s in zip(rows, scores, strict=True)]
        ).mean()
    )


def test_on_policy(token_renderer, tiny_service, tiny_model, teacher, tmp_path):
    config = Config(
        model_name=str(tiny_model),
        dataset="ask",
        learning_rate=0.01,
        lora_rank=4,
        prompts_per_step=2,
        group_size=64,
        max_tokens=4,
        max_steps=24,
        save_every=0,
        log_path=str(tmp_path / "run"),
    )
    task = Task("ask", PROBLEMS)
    edit = ReverseKL(tiny_service, TokenRenderer(), {"": Teacher(model=teacher)})
    result = train(config, task, tiny_service, edit=edit)
    kl = [line["env/all/teacher_kl"] for line in read_metrics(result.log_path)]
    assert kl[-1] < 0.5 * kl[0], kl
    still = replace(config, learning_rate=0.0, max_steps=2, log_path=str(tmp_path / "still"))
    untouched = train(still, task, tiny_service, edit=edit)
    before = reverse_kl(tiny_service, teacher, untouched.sampler_path)
    after = reverse_kl(tiny_service, teacher, result.sampler_path)
    assert after < 0.5 * before


# Soft targets ask for all that the teacher might say, so what the student says nears it less fast.
@pytest.mark.parametrize(("soft", "share"), [(False, 0.5), (True, 0.8)], ids=["hard", "soft"])
def test_off_policy(tiny_service, tiny_model, teacher, soft, share):
    sampler = tiny_service.create_sampling_client(model_path=teacher).result()
    player = Player(renderer=TokenRenderer(), max_tokens=4)
    run = tiny_service.create_lora_training_client(str(tiny_model), rank=4, seed=0).result()
    start = run.save_weights_for_sampler("start").result().path
    for step in range(25):
        groups = play(player, sampler, PROBLEMS, 16, f"off {step}")
        rows = [row for g in groups for e in g.episodes for row in episode_rows(e, 0.0)]
        if soft:
            targets = soft_targets(sampler, rows, 10)
            data = [soft_datum(row, t) for row, t in zip(rows, targets, strict=True)]
        else:
            data = [supervised.datum_from_tokens(row.tokens.tolist(), row.sampled) for row in rows]
        supervised.train_step(run, data, 0.03)
    end = run.save_weights_for_sampler("end").result().path
    before, after = (reverse_kl(tiny_service, teacher, path) for path in (start, end))
    assert after < share * before
