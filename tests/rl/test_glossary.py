from dataclasses import replace

from cookbook.analysis import METRICS
from cookbook.rl import Config, Task
from cookbook.runlog import read_metrics
from tests.rl.fakes import Service
from tests.rl.runs import run

KNOWN = {name for metric in METRICS for name in (metric.name, *metric.aliases)}
BOUNDS = ("_ci95_low", "_ci95_high")


def is_documented(name: str, tags: set[str]) -> bool:
    """By its name, or as the same figure of a tag's problems, or as a bound of its interval."""
    for bound in BOUNDS:
        name = name.removesuffix(bound)
    kind, _, rest = name.partition("/")
    tag, _, figure = rest.partition("/")
    if kind == "env" and tag in tags:
        name = f"env/all/{figure}"
    return name in KNOWN


def test_every_metric_of_a_run_is_in_the_glossary(config: Config, task: Task, server: Service):
    """A run with everything that is logged only sometimes."""
    everything = replace(config, kl_coef=0.1, substeps=2, max_staleness=1, prompts_per_step=6)
    result = run(everything, task, server)
    logged = {name for line in read_metrics(result.log_path) for name in line} - {"step"}
    assert {"env/a/correct", "env/b/correct", "kl_policy_base", "time/evaluation"} <= logged
    assert [name for name in sorted(logged) if not is_documented(name, {"a", "b"})] == []


def test_no_name_stands_twice_in_the_glossary():
    names = [name for metric in METRICS for name in (metric.name, *metric.aliases)]
    assert len(names) == len(set(names))
