from pathlib import Path

from cookbook.analysis import METRICS, describe
from cookbook.analysis.metrics import UNKNOWN, glossary_table

ROOT = Path(__file__).parents[1]


def test_the_document_holds_the_present_table():
    assert glossary_table() in (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")


def test_every_entry_has_a_name_of_its_own_and_a_meaning():
    names = [name for metric in METRICS for name in (metric.name, *metric.aliases)]
    assert len(names) == len({*names})
    assert all(metric.meaning and metric.label for metric in METRICS)


def test_a_subset_is_described_as_the_whole_is():
    assert describe("env/gsm8k/correct").meaning == describe("env/all/correct").meaning
    assert describe("env/gsm8k/correct").label == "correct answers, gsm8k"
    assert describe("test/env/gsm8k/reward/total").better == "higher"


def test_a_held_out_figure_is_described_as_the_same_one_in_training():
    trained = describe("env/all/asks_back")
    held_out = describe("test/env/all/asks_back")
    assert held_out.label == f"held-out {trained.label}"
    assert (held_out.meaning, held_out.better) == (trained.meaning, trained.better)
    assert describe("test/env/tagged/moves").label == "held-out moves, tagged"


def test_an_environments_own_metric_says_so_and_an_unknown_name_does_not():
    assert "own metric" in describe("env/all/moves").meaning
    assert describe("moves").meaning == UNKNOWN
