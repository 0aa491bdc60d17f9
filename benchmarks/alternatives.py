"""What a user would run instead: `transformers` and `peft`, and llama.cpp for sampling."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import peft
import torch
import torch.nn.functional as F
import xllamacpp
from transformers import AutoModelForCausalLM

from benchmarks.ours import RANK
from benchmarks.workloads import Rows, Sampling, answers
from cookbook.engine.weights import bundled_gguf

PADDED_TOKENS = 1024  # of one training micro-batch, padding included: the fastest of 512 to 4096
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")


class Transformers:
    """`generate` on merged weights; `peft` with AdamW for training; the adapter in float32."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.merged = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        settings = peft.LoraConfig(r=RANK, lora_alpha=32, target_modules=list(MODULES))
        self.model = peft.get_peft_model(base, settings)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.95), eps=1e-12)

    def sample(self, job: Sampling) -> None:
        """Draw all samples as one batch."""
        rows = [prompt for prompt in job.prompts for _ in range(job.copies)]
        ids = torch.tensor(rows)  # prompts of one length: nothing is padded
        made = self.merged.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            top_k=0,
            top_p=1.0,
            temperature=1.0,
            max_new_tokens=job.new_tokens,
            min_new_tokens=job.new_tokens,
            pad_token_id=2,
        )
        assert made.shape == (job.sequences, len(job.prompts[0]) + job.new_tokens)

    def train(self, rows: Rows) -> None:
        """One step of cross-entropy: sorted by length, padded, logits where they are needed."""
        order = sorted(range(len(rows.tokens)), key=lambda i: len(rows.tokens[i]))
        for members in _by_padded_size(order, rows):
            width = max(len(rows.tokens[i]) for i in members) - 1
            tokens = torch.zeros(len(members), width, dtype=torch.long)
            targets, weights = tokens.clone(), torch.zeros(len(members), width)
            mask = tokens.clone()
            for at, i in enumerate(members):
                row, n = torch.tensor(rows.tokens[i]), len(rows.tokens[i]) - 1
                tokens[at, :n], targets[at, :n], mask[at, :n] = row[:-1], row[1:], 1
                weights[at, :n] = torch.tensor(rows.weights[i])
            decoder: Any = self.model.base_model.model
            hidden = decoder.model(input_ids=tokens, attention_mask=mask).last_hidden_state
            wanted = weights != 0
            logits = decoder.lm_head(hidden[wanted])
            loss = F.cross_entropy(logits, targets[wanted], reduction="none")
            (loss * weights[wanted]).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def reinforce(self, job: Sampling) -> None:
        """Sample, then train; the loss costs what cross-entropy costs."""
        self.sample(job)
        self.train(answers(job))


def _by_padded_size(order: list[int], rows: Rows) -> list[list[int]]:
    batches: list[list[int]] = []
    for i in order:
        width = len(rows.tokens[i])
        if not batches or (len(batches[-1]) + 1) * width > PADDED_TOKENS:
            batches.append([])
        batches[-1].append(i)
    return batches


class LlamaCpp:
    """llama.cpp on the 4-bit file the bundled model comes from, a slot for every sequence."""

    def __init__(self, slots: int, threads: int) -> None:
        self.scratch = tempfile.TemporaryDirectory()
        settings = xllamacpp.CommonParams()
        settings.model.path = str(bundled_gguf(Path(self.scratch.name)))
        settings.n_parallel = slots
        settings.n_ctx = slots * 256
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
        settings.cache_ram_mib = 0
        settings.warmup = True
        self.server = xllamacpp.Server(settings)

    def sample(self, job: Sampling) -> None:
        """Draw all samples, every request in flight at once."""
        requests = [
            {
                "prompt": prompt,
                "n_predict": job.new_tokens,
                "ignore_eos": True,
                "temperature": 1.0,
                "top_k": 0,
                "top_p": 1.0,
                "min_p": 0.0,
                "cache_prompt": True,
            }
            for prompt in job.prompts
            for _ in range(job.copies)
        ]
        with ThreadPoolExecutor(len(requests)) as pool:
            for told in pool.map(self.server.handle_completions, requests):
                assert told["usage"]["completion_tokens"] == job.new_tokens
