"""Run all of it: ``make bench`` (or ``python -m benchmarks``); half an hour on two cores.

Every job is run by our engine and by the alternatives in turn, in one run of one machine, so that
what else the machine does falls on all of them; figures are medians. Prints the table and writes
`results.json` and `results.png` beside this file.
"""

import argparse
import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch

from benchmarks import ours, workloads
from benchmarks.alternatives import LlamaCpp, Transformers
from benchmarks.apart import Apart
from benchmarks.direct import Direct
from benchmarks.floor import Floor
from benchmarks.picture import draw
from cookbook.engine.base import load_weights
from cookbook.engine.config import read_config
from cookbook.engine.runtime import pick_dtype
from cookbook.engine.weights import resolve_model
from cookbook.models import DEFAULT_MODEL

HERE = Path(__file__).parent
GENERATE, PEFT, LLAMA = "transformers generate", "transformers + peft", "llama.cpp 4-bit"
DIRECT = "ours without the server"


@dataclass(frozen=True)
class Job:
    """One line of the table.

    Attributes:
        name: what is computed.
        ours: the engine doing it.
        others: the alternatives doing it, by name.
        goals: the ratio wanted of each.
        floor: seconds of the matrix products alone.
        direct: the engine without its server, where its share is wanted.
        server_goal: the most of our time that HTTP, serialisation and scheduling may take.
    """

    name: str
    ours: Callable[[], None]
    others: dict[str, Callable[[], None]]
    goals: dict[str, float]
    floor: float
    direct: Callable[[], None] | None = None
    server_goal: float = 0.0


def jobs(engine: ours.Engine, hf: Apart, llama: Apart, direct: Apart, floor: Floor) -> list[Job]:
    """Return the jobs of the table."""
    table = []
    for prompts, copies, tokens, goals in (
        (8, 8, 64, {GENERATE: 6.0, LLAMA: 5.0}),
        (16, 1, 64, {GENERATE: 4.0, LLAMA: 2.0}),
        (1, 1, 128, {GENERATE: 4.0}),
    ):
        job = workloads.sampling(prompts, copies, tokens)
        others: dict[str, Callable[[], None]] = {GENERATE: lambda job=job: hf("sample", job)}
        if LLAMA in goals:
            others[LLAMA] = lambda job=job: llama("sample", job)
        name = f"sample {job.sequences} × {tokens} tokens"
        table.append(
            Job(
                name,
                lambda job=job: engine.sample(job),
                others,
                goals,
                floor.sampling(job),
                lambda job=job: direct("sample", job),
                0.10,
            )
        )
    rows = workloads.conversations()
    tokens = sum(map(len, rows.tokens))
    table.append(
        Job(
            f"train on {len(rows.tokens)} conversations, {tokens:,} tokens",
            lambda: engine.train(rows),
            {PEFT: lambda: hf("train", rows)},
            {PEFT: 3.0},
            floor.training(rows),
            lambda: direct("train", rows),
            0.05,
        )
    )
    rl = workloads.sampling(8, 8, 24)
    shared = sum(len(prompt) - 1 for prompt in rl.prompts) * (rl.copies - 1)
    table.append(
        Job(
            "RL step: sample 8 × 8 × 24 tokens and train",
            lambda: engine.reinforce(rl),
            {f"{GENERATE} + peft": lambda: hf("reinforce", rl)},
            {f"{GENERATE} + peft": 6.0},
            floor.sampling(rl) + floor.training(workloads.answers(rl), shared),
        )
    )
    return table


def measure(job: Job, repeats: int) -> dict:
    """Return the medians and spreads of a job after one warm-up each, programs taking turns."""
    programs = {"ours": job.ours, **job.others}
    if job.direct:
        programs[DIRECT] = job.direct
    for work in programs.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, work in programs.items():
            seconds[name].append(ours.clock(work))
    result: dict = {"job": job.name, "floor_s": job.floor, "programs": {}}
    mine = median(seconds["ours"])
    for name, times in seconds.items():
        told = {"median_s": median(times), "min_s": min(times), "max_s": max(times)}
        if name in job.others:
            told |= {"ratio": median(times) / mine, "goal": job.goals[name]}
        result["programs"][name] = told
    result["floor_share"] = job.floor / mine
    if job.direct:
        result["server_share"] = 1 - median(seconds[DIRECT]) / mine
        result["server_goal"] = job.server_goal
    return result


def show(result: dict) -> None:
    """Print one job's lines."""
    print(f"\n{result['job']}")
    for name, told in result["programs"].items():
        spread = f"{told['min_s']:.2f} to {told['max_s']:.2f}"
        line = f"  {name:28s} {told['median_s']:7.2f} s  ({spread})"
        if "ratio" in told:
            line += f"   ours is {told['ratio']:.1f} × as fast, goal {told['goal']:.0f}"
        elif name == DIRECT:
            line += f"   HTTP and scheduling take {result['server_share']:.1%} of ours"
            line += f", goal {result['server_goal']:.0%}"
        else:
            line += f"   matrix products alone are {result['floor_share']:.0%} of it"
        print(line, flush=True)


def main() -> None:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="run jobs whose name contains this")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    threads = torch.get_num_threads()
    folder = resolve_model(DEFAULT_MODEL)
    first = [ours.seconds_to_first_result(DEFAULT_MODEL) for _ in range(options.repeats)]
    print(f"connect() to the first training result: {median(first):.2f} s, goal 3")
    dtype = pick_dtype("auto", "cpu")  # what the engine takes here; all but llama.cpp use it
    floor = Floor(load_weights(folder, read_config(folder), dtype, "cpu"))
    engine, hf = ours.Engine(DEFAULT_MODEL), Apart(Transformers, folder, dtype)
    llama, direct = Apart(LlamaCpp, 64, threads), Apart(Direct, folder, dtype)
    results = []
    for job in jobs(engine, hf, llama, direct, floor):
        if options.only in job.name:
            results.append(measure(job, options.repeats))
            show(results[-1])
    for program in (hf, llama, direct):
        program.close()
    packages = ("torch", "tinker", "transformers", "peft", "xllamacpp")
    written = {
        "machine": {"cores": os.cpu_count(), "threads": threads, "system": platform.system()},
        "dtype": str(dtype).removeprefix("torch."),
        "versions": {name: version(name) for name in packages},
        "repeats": options.repeats,
        "first_result_s": {"median_s": median(first), "goal_s": 3.0},
        "jobs": results,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.json").write_text(json.dumps(written, indent=2) + "\n")
    draw(written, options.output / "results.png")
    print(f"\nwrote {options.output / 'results.json'} and results.png")


if __name__ == "__main__":
    main()
