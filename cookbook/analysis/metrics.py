"""Looking metrics up in the glossary."""

from dataclasses import replace

from cookbook.analysis.glossary import METRICS, Metric

UNKNOWN = "not in the glossary"
_BY_NAME = {name: metric for metric in METRICS for name in (metric.name, *metric.aliases)}
_ORDER = {name: position for position, name in enumerate(_BY_NAME)}

HEADLINES = (
    "test/nll",
    "test/env/all/reward/total",
    "env/all/reward/total",
    "test/ranking_accuracy",
    "ranking_accuracy",
    "train_mean_nll",
)
"""What a run is judged by: the first of these that its log holds."""


def describe(name: str) -> Metric:
    """Return the glossary's entry for `name`.

    What is measured on a subset, `env/<tag>/...`, has the entry of all of them, and `test/<name>`
    that of the same figure on training data; an environment's own metrics and unknown names
    describe themselves.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    prefix, tag, rest = _split_env(name)
    if rest:
        whole = _BY_NAME.get(f"{prefix}env/all/{rest}")
        if whole:
            return replace(whole, name=name, label=f"{whole.label}, {tag}", aliases=())
        if not prefix:
            told = "an environment's own metric, its mean over episodes"
            return Metric(name, rest if tag == "all" else f"{rest}, {tag}", "", "-", told)
    trained = name.removeprefix("test/")
    same = describe(trained) if prefix else _BY_NAME.get(trained)
    if same:
        return replace(same, name=name, label=f"held-out {same.label}", aliases=())
    seconds = name.startswith("time/")
    meaning = "wall time of this part of the step" if seconds else UNKNOWN
    return Metric(name, name, "s" if seconds else "", "-", meaning)


def _split_env(name: str) -> tuple[str, str, str]:
    """Return ("test/" or "", tag, rest) of an environment's metric; ("", "", "") for others."""
    prefix = "test/" if name.startswith("test/env/") else ""
    parts = name.removeprefix(prefix).split("/", 2)
    return (prefix, parts[1], parts[2]) if parts[0] == "env" and len(parts) == 3 else ("", "", "")


def glossary_table() -> str:
    """Return the glossary as the Markdown table of docs/metrics.md."""
    rows = [
        f"| {_names(m)} | {m.meaning} | {m.unit or '–'} | {m.healthy or '–'} |" for m in METRICS
    ]
    return "\n".join(
        ["| name | meaning | unit | a healthy run shows |", "|---|---|---|---|", *rows]
    )


def _names(metric: Metric) -> str:
    return ", ".join(f"`{name}`" for name in (metric.name, *metric.aliases))


def rank(name: str) -> tuple[int, str]:
    """Return a sorting key: the glossary's order first, other names by alphabet after it."""
    return _ORDER.get(name, len(_ORDER)), name
