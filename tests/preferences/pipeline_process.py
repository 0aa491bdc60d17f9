"""The three stages of learning from human feedback, small, in a process of its own to be killed."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import transformers

from cookbook import preferences, rl, supervised
from cookbook.checkpointing import Result
from cookbook.preferences import Comparison, Judge
from cookbook.rendering import get_renderer
from cookbook.service import connect

# The SDK imports this late, which would cost every process seconds.
PRELOADED = transformers.AutoTokenizer

STEPS = {"sft": 4, "rm": 4, "rl": 4}
COMPARISONS = [
    Comparison(
        prompt=[{"role": "system", "content": "s"}, {"role": "user", "content": f"{i}?"}],
        answer_a=f"It is {i}.",
        answer_b="No.",
        label="A",
    )
    for i in range(6)
]


@dataclass(frozen=True)
class Pipeline:
    """What a run of all stages works with; each stage has a folder below `root`."""

    model: str
    root: Path

    def run(self, service: Any, on_step: Callable[[str, int], object]) -> dict[str, Result]:
        """Run or resume all stages; `on_step` is told stage and step."""

        def told(stage: str) -> Callable[[Any], object]:
            return lambda metrics: on_step(stage, metrics["step"])

        demonstrations = [each.with_answer(each.chosen) for each in COMPARISONS]
        sft = supervised.train(
            self._supervised("sft"),
            service,
            told("sft"),
            supervised.Examples(train=demonstrations[1:], test=demonstrations[:1]),
        )
        rm = supervised.train(
            self._supervised("rm"),
            service,
            told("rm"),
            supervised.Examples(
                train=COMPARISONS[1:], test=COMPARISONS[:1], build=preferences.judge_datums
            ),
        )
        sampler = service.create_sampling_client(model_path=rm.sampler_path).result()
        scratch = service.create_lora_training_client(self.model, rank=1, seed=0).result()
        judge = Judge(sampler=sampler, renderer=get_renderer(scratch.get_tokenizer(), self.model))
        task = rl.Task(
            "replies",
            [
                preferences.tournament(f"p{i}", each.prompt, judge.prefer)
                for i, each in enumerate(COMPARISONS[1:])
            ],
            [
                preferences.duel(f"t{i}", each.prompt, each.chosen, judge.prefer)
                for i, each in enumerate(COMPARISONS[:1])
            ],
            about=rm.sampler_path,
        )
        config = rl.Config(
            model_name=self.model,
            lora_rank=4,
            learning_rate=1e-2,
            prompts_per_step=2,
            group_size=3,
            max_tokens=4,
            max_steps=STEPS["rl"],
            test_samples=2,
            save_every=2,
            kl_coef=0.1,
            kl_reference=sft.sampler_path,
            start_from=sft.state_path,
            log_path=str(self.root / "rl"),
        )
        return {"sft": sft, "rm": rm, "rl": rl.train(config, task, service, told("rl"))}

    def _supervised(self, stage: str) -> supervised.Config:
        return supervised.Config(
            model_name=self.model,
            dataset=stage,
            lora_rank=4,
            learning_rate=1e-2,
            batch_size=2,
            num_epochs=4,
            max_steps=STEPS[stage],
            eval_every=0,
            save_every=2,
            log_path=str(self.root / stage),
        )


def run(server: dict[str, str], pipeline: Pipeline, stage: str, step: int, delay_s: float) -> None:
    """Run all stages; die this long after that step of that stage was logged."""
    os.environ.update(server)
    killer = threading.Timer(delay_s, psutil.Process().kill)
    pipeline.run(connect(pipeline.model), lambda *at: at == (stage, step) and killer.start())
