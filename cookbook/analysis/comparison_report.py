"""What a comparison leaves behind: table, pictures, and a report in Markdown and HTML."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from cookbook.analysis.compare import (
    OUTCOME,
    LogPaths,
    compare,
    comparison_figure,
    differing_settings,
    outcome_row,
    setting_text,
)
from cookbook.analysis.diagnosis import signs_of_trouble
from cookbook.analysis.plots import finding
from cookbook.analysis.ranking import best_run, ranked, standing, verdict
from cookbook.analysis.run import Run, load_run
from cookbook.analysis.style import alt_text, png
from cookbook.analysis.sweep import (
    main_setting,
    other_settings,
    run_label,
    sorted_runs,
    sweep_figure,
)
from cookbook.analysis.table import Table
from cookbook.errors import DataError

TABLE, PICTURE, RUNS = "comparison.txt", "comparison.png", "runs.png"
MARKDOWN, HTML = "report.md", "report.html"
MAX_PANELS = 12
NOISE = (
    "Intervals are 95%, of the held-out examples or of the scatter between steps. Runs that share "
    "their examples differ more surely than their intervals suggest. "
)
ONE_SEED = "There is one run per setting: how much another seed would change, nobody measured."
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 68rem;
  padding: 0 1rem; color: #222; background: #fff }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left }
figure { margin: 1rem 0 } img { max-width: 100%; height: auto } figcaption { color: #555 }
"""


@dataclass(frozen=True)
class _Part:
    """One section of the report: a title and a text, a list, a table or a picture below it."""

    title: str
    text: str = ""
    items: tuple[str, ...] = ()
    table: Table | None = None
    picture: str = ""
    """File name of the figure."""
    alt: str = ""


def best_of_table(log_paths: LogPaths) -> Table:
    """Return the runs, best first, each with its settings that differ, outcome and standing.

    Raises:
        DataError: no runs, or runs that are judged by different metrics.
    """
    runs = ranked([load_run(path) for path in log_paths])
    metrics = {run.headline().name for run in runs}
    if len(metrics) != 1:
        raise DataError(f"Runs of one kind can be ranked, these have {sorted(metrics) or 'none'}.")
    settings, best = differing_settings(runs), best_run(runs)
    rows = [
        [
            run.name,
            *(setting_text(run, name) for name in settings),
            standing(run, best),
            *outcome_row(run),
        ]
        for run in runs
    ]
    return Table.of(("run", *settings, "standing", *OUTCOME), rows)


def write_comparison(
    log_paths: LogPaths, output_dir: str | Path, setting: str | None = None
) -> list[Path]:
    """Write table, pictures and report of several runs into `output_dir`; return the files.

    `report.html` holds its pictures, `report.md` names the files beside it.

    Args:
        log_paths: at least two runs.
        output_dir: made when missing.
        setting: what to draw the outcome against; by default a setting that differs, the learning
            rate first. Runs that are judged by different metrics, or do not differ, get curves and
            a table alone.
    Raises:
        DataError: fewer than two runs, or a given `setting` that cannot be drawn.
    """
    runs = [load_run(path) for path in log_paths]
    alike = len({run.headline().name for run in runs}) == 1
    if setting is None and alike:
        setting = main_setting(runs)
    if setting is not None or len(runs) < 2:
        runs = sorted_runs(log_paths, setting or "learning_rate")
    paths = [run.path for run in runs]
    figures = {PICTURE: sweep_figure(paths, setting)} if setting is not None else {}
    shown = [run.path for run in (ranked(runs) if alike else runs)[:MAX_PANELS]]
    figures[RUNS] = comparison_figure(shown)
    folder = Path(output_dir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TABLE).write_text(f"{compare(paths)}\n", encoding="utf-8")
    pictures = {name: png(figure) for name, figure in figures.items()}
    for name, content in pictures.items():
        (folder / name).write_bytes(content)
    parts = _parts(runs, setting, figures, alike)
    (folder / MARKDOWN).write_text(_markdown(parts), encoding="utf-8")
    (folder / HTML).write_text(_html(parts, pictures), encoding="utf-8")
    return [folder / name for name in (TABLE, *pictures, MARKDOWN, HTML)]


def _parts(
    runs: Sequence[Run], setting: str | None, figures: dict[str, Figure], alike: bool
) -> list[_Part]:
    differing, paths = differing_settings(runs), [run.path for run in runs]
    seeds = "" if "seed" in differing else ONE_SEED
    told = f"{len(runs)} runs"
    if setting is not None:
        others = other_settings(runs, setting)
        told = verdict(runs, lambda run: run_label(run, setting, others)).replace("\n", "; ")
    parts = [_Part(f"Comparison of {len(runs)} runs", f"{told}. {NOISE}{seeds}".strip())]
    table = best_of_table(paths) if alike else compare(paths)
    parts.append(_Part("Best first" if alike else "The runs", table=table))
    for name, figure in figures.items():
        title = "Each run" if name == RUNS else f"Against {str(setting).replace('_', ' ')}"
        parts.append(_Part(title, picture=name, alt=alt_text(figure)))
    findings = tuple(
        " ".join([f"{run.name}: {finding(run.headline())}.", *signs_of_trouble(run)])
        for run in runs
    )
    parts.append(_Part("What each run shows, and signs of trouble", items=findings))
    common = sorted(set.intersection(*(set(run.config) for run in runs)) - {*differing, "log_path"})
    shared = tuple(f"{name} = {runs[0].config[name]!r}" for name in common)
    parts.append(_Part("Settings that all share", items=shared or ("none",)))
    return parts


def _markdown(parts: Sequence[_Part]) -> str:
    blocks = []
    for number, part in enumerate(parts):
        blocks.append(f"{'#' if number == 0 else '##'} {part.title}")
        blocks += [part.text] if part.text else []
        blocks += ["\n".join(f"- {item}" for item in part.items)] if part.items else []
        blocks += [part.table.markdown()] if part.table else []
        blocks += [f"![{part.alt}]({part.picture})"] if part.picture else []
    return "\n\n".join(blocks) + "\n"


def _html(parts: Sequence[_Part], pictures: dict[str, bytes]) -> str:
    body = ""
    for number, part in enumerate(parts):
        level = 1 if number == 0 else 2
        body += f"<h{level}>{escape(part.title)}</h{level}>"
        body += f"<p>{escape(part.text)}</p>" if part.text else ""
        body += f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in part.items)}</ul>"
        body += part.table._repr_html_() if part.table else ""
        if part.picture:
            data = base64.b64encode(pictures[part.picture]).decode()
            alt = escape(part.alt, quote=True)
            body += (
                f'<figure><img alt="{alt}" src="data:image/png;base64,{data}">'
                f"<figcaption>{escape(part.alt)}</figcaption></figure>"
            )
    title = escape(parts[0].title)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"{body.replace('<ul></ul>', '')}</html>\n"
    )
