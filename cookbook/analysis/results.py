"""From a run folder to a results folder: report, settings and picture."""

import os
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cookbook.analysis.plots import training_figure
from cookbook.analysis.report import hyperparameters_text, report_text
from cookbook.analysis.rollout_page import PAGE, write_page
from cookbook.analysis.rollouts import read_rollouts
from cookbook.analysis.run import load_run
from cookbook.analysis.style import png
from cookbook.analysis.wording import scientific
from cookbook.runlog import read_config

REPORT, SETTINGS = "training_report.txt", "hyperparameters.txt"
PICTURE = "training_analysis.png"
RESULTS_NOTE = "results_path.txt"


def analyze(log_path: str | os.PathLike[str], output_dir: str | os.PathLike[str]) -> Path:
    """Write report, settings and picture of the run in `log_path`; return the folder they are in.

    A run that stored rollouts gets a page to browse them too.

    Works on unfinished, empty and torn logs: the three files then say what is missing. The same
    log gives the same files.

    Raises:
        DataError: `log_path` is no run folder.
    """
    run = load_run(log_path)
    folder = Path(output_dir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    # Text first: it is there even if drawing fails.
    (folder / SETTINGS).write_text(hyperparameters_text(run), encoding="utf-8")
    (folder / REPORT).write_text(report_text(run), encoding="utf-8")
    (folder / PICTURE).write_bytes(png(training_figure(run)))
    if rollouts := read_rollouts(log_path):
        write_page(rollouts, run.name, folder / PAGE)
    return folder


def results_folder(
    config: Mapping[str, Any], root: str | os.PathLike[str] = "results", now: datetime | None = None
) -> Path:
    """Return `root/YYYYMMDD_HHMMSS_<model>_<dataset>_lr<rate>_ep<epochs>`; nothing is created.

    Args:
        config: the run's settings: `model_name`, `dataset`, `learning_rate`, `num_epochs`; a
            missing name reads "unknown", missing epochs 1.
        root: folder to put it in.
        now: local time to name it by, default the present.

    Example:
        >>> results_folder(
        ...     {"model_name": "Qwen/Qwen3-4B-Instruct-2507", "dataset": "s1k",
        ...      "learning_rate": 1e-5, "num_epochs": 5},
        ...     now=datetime(2025, 1, 8, 14, 30, 52),
        ... ).name
        '20250108_143052_Qwen3-4B-Instruct-2507_s1k_lr1e-05_ep5'
    """
    stamp = (now or datetime.now()).strftime("%Y%m%d_%H%M%S")
    model, dataset = _last_part(config.get("model_name")), _last_part(config.get("dataset"))
    rate = config.get("learning_rate")
    rate = scientific(rate) if isinstance(rate, int | float) else "unknown"
    epochs = config.get("num_epochs", 1)
    return Path(root).expanduser() / f"{stamp}_{model}_{dataset}_lr{rate}_ep{epochs}"


def save_results(
    log_path: str | os.PathLike[str], root: str | os.PathLike[str] = "results"
) -> Path:
    """Analyse a run that has just ended into a folder of its own below `root`; return that folder.

    Never raises on account of the analysis, so a finished run cannot be lost to a plot: it prints
    what went wrong and how to try again, and returns whatever folder there is. The folder's path is
    noted in `results_path.txt` beside the run's logs.
    """
    folder = Path(log_path)
    try:
        folder = _claim_folder(read_config(log_path), Path(root).expanduser().resolve())
        analyze(log_path, folder)
        (Path(log_path).expanduser() / RESULTS_NOTE).write_text(f"{folder}\n", encoding="utf-8")
    except Exception as error:
        print(
            f"The run is complete and safe in {log_path}, but its analysis failed: "
            f"{type(error).__name__}: {error}\nTry again with: "
            f"python -m cookbook.analysis {log_path} OUTPUT_DIR"
        )
    return folder


def _claim_folder(config: Mapping[str, Any], root: Path) -> Path:
    """Make and return the run's results folder; a second taken by another run is passed over."""
    now = datetime.now()
    while True:
        folder = results_folder(config, root, now)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            now += timedelta(seconds=1)
        else:
            return folder


def _last_part(name: object) -> str:
    """Return a hub id without its organisation, or a file's name without folder and ending."""
    parts = [part for part in re.split(r"[/\\]", str(name or "")) if part] or ["unknown"]
    part = re.sub(r"\.(jsonl?(\.gz)?|parquet)$", "", parts[-1])
    return re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-.") or "unknown"
