"""Read a training run's folder; get numbers, a report, plots, comparisons. Trains nothing."""

from cookbook.analysis.boards import GameView, board_figure, game_view
from cookbook.analysis.compare import compare, comparison_figure
from cookbook.analysis.comparison_report import best_of_table, write_comparison
from cookbook.analysis.diagnosis import signs_of_trouble
from cookbook.analysis.elo import GameResult, Rating, elo_ratings
from cookbook.analysis.glossary import METRICS, Metric
from cookbook.analysis.intervals import mean_interval, wilson_interval
from cookbook.analysis.metrics import describe
from cookbook.analysis.plots import finding, reward_figure, training_figure
from cookbook.analysis.ranking import verdict
from cookbook.analysis.reference import REFERENCE, reference_runs
from cookbook.analysis.report import held_out_table, metric_table, report_text
from cookbook.analysis.results import analyze, results_folder, save_results
from cookbook.analysis.rollouts import read_rollouts, rollout_table
from cookbook.analysis.run import Change, Run, Series, change, load_run, smooth
from cookbook.analysis.style import alt_text, figure_style, label_ends, new_figure, show
from cookbook.analysis.sweep import sweep_figure
from cookbook.analysis.table import Table

__all__ = [
    "METRICS",
    "REFERENCE",
    "Change",
    "GameResult",
    "GameView",
    "Metric",
    "Rating",
    "Run",
    "Series",
    "Table",
    "alt_text",
    "analyze",
    "best_of_table",
    "board_figure",
    "change",
    "compare",
    "comparison_figure",
    "describe",
    "elo_ratings",
    "figure_style",
    "finding",
    "game_view",
    "held_out_table",
    "label_ends",
    "load_run",
    "mean_interval",
    "metric_table",
    "new_figure",
    "read_rollouts",
    "reference_runs",
    "report_text",
    "results_folder",
    "reward_figure",
    "rollout_table",
    "save_results",
    "show",
    "signs_of_trouble",
    "smooth",
    "sweep_figure",
    "training_figure",
    "verdict",
    "wilson_interval",
    "write_comparison",
]
