"""Ten minutes of mixed work on one engine: does its memory stay flat?

``python -m benchmarks.soak``. Every round opens a client, trains two runs, samples from both and
from the base, saves, overwrites, deletes and closes. Prints the engine's resident memory as it
goes. Fails if the last third of the time needs over a tenth more than the second third.
"""

import argparse
import sys
import time
from statistics import median

import psutil
import tinker

from benchmarks.ours import ADAM, RANK, datum, submit
from benchmarks.workloads import conversations, sampling
from cookbook.embedded import EmbeddedEngine
from cookbook.models import DEFAULT_MODEL

ALLOWED_GROWTH = 1.1


def one_round(engine: EmbeddedEngine, number: int) -> None:
    """Do a little of everything, in a session of its own."""
    address = {"base_url": engine.base_url, "api_key": engine.api_key}
    rest = tinker.RestClient(**address)
    job, rows = sampling(2, 4, 8 + number % 9), conversations(2 + number % 3)
    with tinker.ServiceClient(**address) as service:
        base = service.create_sampling_client(base_model=DEFAULT_MODEL).result()
        for seed in (0, 1):
            run = service.create_lora_training_client(DEFAULT_MODEL, rank=RANK, seed=seed).result()
            data = [
                datum(tokens, weights=weights)
                for tokens, weights in zip(rows.tokens, rows.weights, strict=True)
            ]
            steps = [
                (run.forward_backward(data, "cross_entropy"), run.optim_step(ADAM))
                for _ in range(2)
            ]
            sampler = run.save_weights_and_get_sampling_client().result()
            waiting = [*submit(sampler, job), *submit(base, job)]
            for future in [*sum(steps, ()), *waiting]:
                future.result()
            for _ in range(2):
                path = run.save_state("soak", overwrite=True).result().path
            service.create_training_client_from_state_with_optimizer(path).result()
            rest.delete_checkpoint_from_tinker_path(path).result()


def main() -> int:
    """Run the soak."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    minutes = parser.parse_args().minutes
    engine = EmbeddedEngine(DEFAULT_MODEL)
    process = psutil.Process(engine.process.pid)
    start, measured = time.monotonic(), []
    while (passed := time.monotonic() - start) < minutes * 60:
        one_round(engine, len(measured))
        measured.append((passed, process.memory_info().rss / 2**20))
        print(f"{passed:5.0f} s  round {len(measured):3d}  {measured[-1][1]:6.0f} MiB", flush=True)
    engine.stop()
    third = minutes * 60 / 3
    middle = [size for at, size in measured if third <= at < 2 * third]
    last = [size for at, size in measured if at >= 2 * third]
    if not middle or not last:
        print(f"{len(measured)} rounds are too few to compare; give more minutes than {minutes}")
        return 1
    before, after = median(middle), median(last)
    print(f"second third {before:.0f} MiB, last third {after:.0f} MiB, {len(measured)} rounds")
    return int(after > ALLOWED_GROWTH * before)


if __name__ == "__main__":
    sys.exit(main())
