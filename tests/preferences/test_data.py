import gzip
import json
import statistics
from pathlib import Path

import datasets
import pytest

from cookbook.errors import ConfigError, DataError
from cookbook.preferences import (
    asks_back,
    labelled_answers,
    load_comparisons,
    load_train_and_test,
    split_comparisons,
    without_ties,
)
from cookbook.preferences.data import BUNDLED
from cookbook.rows import read_rows

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
USER = {"role": "user", "content": "q"}
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("good", "bad"))


def write_jsonl(folder, *rows):
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return str(path)


def only(comparisons):
    (comparison,) = comparisons
    return comparison.prompt, comparison.answer_a, comparison.answer_b, comparison.label


# ---- local files


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": [USER], "chosen": GOOD, "rejected": BAD},
        {"prompt": "q", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": "q", "answer_a": "good", "answer_b": "bad", "label": "A"},
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
    ],
)
def test_the_usual_forms(tmp_path, row):
    assert only(load_comparisons(write_jsonl(tmp_path, row))) == ([USER], "good", "bad", "A")


def test_parquet_and_ties(tmp_path):
    path = str(tmp_path / "rows.parquet")
    row = {"prompt": [USER], "answer_a": "x", "answer_b": "y", "label": "Tie"}
    datasets.Dataset.from_list([row]).to_parquet(path)
    assert only(load_comparisons(path)) == ([USER], "x", "y", "Tie")


def test_labelled_answers(tmp_path):
    mapper = labelled_answers("in", "one", "two", "best", {1: "A", 2: "B", 0: "Tie"})
    rows = [{"in": "q", "one": "x", "two": "y", "best": best} for best in (1, 2, 0)]
    found = load_comparisons(write_jsonl(tmp_path, *rows), to_comparison=mapper)
    assert [comparison.label for comparison in found] == ["A", "B", "Tie"]
    path = write_jsonl(tmp_path, rows[0], {**rows[0], "best": 3})
    with pytest.raises(DataError, match=r"line 2, field 'best': expected one of 1, 2, 0, got 3"):
        load_comparisons(path, to_comparison=mapper)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "x"}, r"line 2, field 'chosen': .*the row has \['text'\].*labelled_answers"),
        ({"prompt": "q", "chosen": "x", "rejected": ""}, r"line 2, field 'answer_b'"),
        ({"prompt": "q", "chosen": "x", "rejected": 3}, r"line 2, field 'rejected'"),
        ({"prompt": [], "chosen": "x", "rejected": "y"}, r"line 2, field 'prompt'"),
        (
            {"chosen": [USER, GOOD], "rejected": [GOOD, BAD]},
            r"line 2, field 'rejected': expected the messages of 'chosen' with another last",
        ),
        (
            {"prompt": "q", "answer_a": "x", "answer_b": "y", "label": "C"},
            r"line 2, field 'label': expected one of A, B, Tie",
        ),
        (
            {"conversations": [{"from": "bot", "value": ""}], "chosen": {}, "rejected": {}},
            r"line 2, field 'conversations': expected turns from one of system, human",
        ),
    ],
)
def test_bad_rows_name_line_and_field(tmp_path, row, words):
    good = {"prompt": "q", "chosen": "x", "rejected": "y"}
    with pytest.raises(DataError, match=words):
        load_comparisons(write_jsonl(tmp_path, good, row))


def test_sources_and_splits(tmp_path):
    with pytest.raises(ConfigError, match=r"is unknown. Allowed: 'tutor_replies', the path"):
        load_comparisons("tutor_reply")
    with pytest.raises(ConfigError, match=r"no split 'test'.*split_comparisons"):
        load_comparisons(BUNDLED, "test")
    with pytest.raises(DataError, match="holds no comparisons"):
        load_comparisons(write_jsonl(tmp_path))


# ---- sets on the hub: made-up rows in their columns


@pytest.fixture
def hub(monkeypatch):
    """Serve `hub[(id, [configuration,] split)] = rows` in place of the hub."""
    served = {}

    def load_dataset(*place, split):
        if (*place, split) not in served:
            raise ValueError(f'Unknown split "{split}".')
        return datasets.Dataset.from_list(served[(*place, split)])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return served


def test_hh_rlhf_keeps_rows_that_share_all_but_the_last_message(hub):
    start = "\n\nHuman: q\n\nAssistant: why?\n\nHuman: so"
    rows = [
        {"chosen": f"{start}\n\nAssistant: good", "rejected": f"{start}\n\nAssistant: bad\n\nx"},
        {"chosen": f"{start}\n\nAssistant: a", "rejected": "\n\nHuman: r\n\nAssistant: b"},
    ]
    hub["Anthropic/hh-rlhf", "train"] = rows
    hub["Anthropic/hh-rlhf", "test"] = [rows[0]] * 3
    prompt = [
        USER,
        {"role": "assistant", "content": "why?"},
        {"role": "user", "content": "so"},
    ]
    assert only(load_comparisons("Anthropic/hh-rlhf")) == (prompt, "good", "bad\n\nx", "A")
    train, test = load_train_and_test("Anthropic/hh-rlhf", 2, seed=0)
    assert (len(train), len(test)) == (1, 2)
    assert load_train_and_test("Anthropic/hh-rlhf", 0, seed=0)[1] == []


def test_ultrafeedback(hub):
    hub["argilla/ultrafeedback-binarized-preferences", "train"] = [
        {"source": "s", "instruction": "q", "chosen_response": "good", "chosen_avg_rating": 5.0}
        | {"rejected_response": "bad", "rejected_avg_rating": 2.0, "chosen_model": "m"}
    ]
    found = load_comparisons("argilla/ultrafeedback-binarized-preferences")
    assert only(found) == ([USER], "good", "bad", "A")
    row = {"prompt": "q", "chosen": [USER, GOOD], "rejected": [USER, BAD], "score_chosen": 8.0}
    hub["HuggingFaceH4/ultrafeedback_binarized", "train_prefs"] = [row] * 2
    hub["HuggingFaceH4/ultrafeedback_binarized", "test_prefs"] = [row]
    train, test = load_train_and_test("HuggingFaceH4/ultrafeedback_binarized", 5, seed=0)
    assert (len(train), only(test)) == (2, ([USER], "good", "bad", "A"))


def test_helpsteer3(hub):
    row = {"domain": "general", "language": "english", "context": [USER], "response1": "x"}
    rows = [{**row, "response2": "y", "overall_preference": score} for score in (-3, 1, 0)]
    hub["nvidia/HelpSteer3", "preference", "train"] = rows
    hub["nvidia/HelpSteer3", "preference", "validation"] = rows[:1]
    assert [c.label for c in load_comparisons("nvidia/HelpSteer3")] == ["A", "B", "Tie"]
    assert only(load_comparisons("nvidia/HelpSteer3", "test")) == ([USER], "x", "y", "A")


def test_bad_rows_of_the_hub_are_counted_and_left_out(hub):
    row = {"prompt": "q", "chosen": "x", "rejected": "y"}
    hub["me/set", "train"] = [row, {**row, "chosen": " "}, {**row, "rejected": ""}]
    with pytest.warns(UserWarning, match=r"2 rows are left out, .*me/set train row 2, field 'ans"):
        assert len(load_comparisons("me/set")) == 1
    hub["me/set", "train"] = [{"text": "x"}]
    with pytest.raises(DataError, match=r"no comparisons.*train row 1, field 'chosen'"):
        load_comparisons("me/set")
    with pytest.raises(DataError, match=r"Cannot load 'me/set'.*use 'tutor_replies'"):
        load_comparisons("me/set", "odd")


# ---- splitting


def test_a_split_shares_no_prompt():
    rows = load_comparisons(BUNDLED)
    doubled = rows + [comparison.swapped() for comparison in rows]
    train, test = split_comparisons(doubled, 40, seed=1)
    assert len(test) == 40
    assert not {repr(c.prompt) for c in train} & {repr(c.prompt) for c in test}
    assert len(train) >= len(doubled) - 80
    assert split_comparisons(doubled, 40, seed=1) == (train, test)
    assert split_comparisons(doubled, 40, seed=2)[1] != test


def test_splits_that_cannot_be():
    rows = load_comparisons(BUNDLED)[:2]
    for n_test in (-1, 2):
        with pytest.raises(ConfigError, match=rf"n_test={n_test}, but there are 2.*0 to 1"):
            split_comparisons(rows, n_test, seed=0)
    with pytest.raises(ConfigError, match="leaves no prompt"):
        split_comparisons([rows[0], rows[0].swapped()], 1, seed=0)


# ---- the bundled set


def test_bundled_set_follows_its_rule():
    comparisons = load_comparisons(BUNDLED)
    assert len(comparisons) >= 400
    assert all(asks_back(comparison.chosen) for comparison in comparisons)
    assert not any(asks_back(comparison.rejected) for comparison in comparisons)
    several = [len(comparison.prompt) > 1 for comparison in comparisons]
    assert 60 <= sum(several) <= len(comparisons) / 3


def test_bundled_texts_are_clean_and_not_repeated():
    folder = Path(__file__).parents[2] / "cookbook" / "data"
    rows = [row for _, row in read_rows(folder / f"{BUNDLED}.jsonl")]
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(set(row) == {"id", "topic", "prompt", "chosen", "rejected"} for row in rows)
    for key in ("chosen", "rejected"):
        assert len({row[key] for row in rows}) == len(rows)
    assert len({json.dumps(row["prompt"]) for row in rows}) == len(rows)
    for row in rows:
        for text in (row["chosen"], row["rejected"], *(m["content"] for m in row["prompt"])):
            assert text == " ".join(text.split())
            assert text[0].isupper() or text[0].isdigit() or text.startswith("pH"), text
            assert text[-1] in ".?!", text


def test_neither_length_nor_a_question_mark_decides(tokenizer):
    def n_tokens(text):
        return len(tokenizer.encode(text))

    comparisons = load_comparisons(BUNDLED)
    pairs = [(n_tokens(c.chosen), n_tokens(c.rejected)) for c in comparisons]
    assert max(max(pair) for pair in pairs) <= 48
    assert abs(statistics.fmean(chosen - rejected for chosen, rejected in pairs)) < 0.5
    longer_wins = statistics.fmean(
        0.5 if chosen == rejected else chosen > rejected for chosen, rejected in pairs
    )
    assert 0.45 < longer_wins < 0.55
    with_question = sum("?" in c.rejected for c in comparisons)
    assert with_question >= len(comparisons) / 6


# ---- real sets, where they are


def shared(*parts):
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip("the shared data folder is not there")
    return path


def test_reads_llmbar():
    mapper = labelled_answers("input", "output_1", "output_2", "label", {1: "A", 2: "B"})
    found = load_comparisons(str(shared("llmbar", "llmbar.jsonl")), to_comparison=mapper)
    assert len(found) == 419
    assert {comparison.label for comparison in found} == {"A", "B"}


def test_reads_dpo_multiturn_300(tmp_path):
    path = shared("dpo_multiturn_300", "dpo_en_demo.json.gz")
    rows = json.loads(gzip.decompress(path.read_bytes()))
    found = load_comparisons(write_jsonl(tmp_path, *rows))
    assert len(found) == 300
    assert any(len(comparison.prompt) > 1 for comparison in found)
    assert found[0].chosen == rows[0]["chosen"]["value"]


def test_reads_pandalm_with_its_ties(tmp_path):
    rows = json.loads(shared("pandalm_pairs", "testset-v1.json").read_text())
    labels = {0: "Tie", 1: "A", 2: "B"}
    mapper = labelled_answers("instruction", "response1", "response2", "annotator1", labels)
    answers = [(row["response1"], row["response2"]) for row in rows]
    answered = [
        row  # some answers are blank, and a few are true, which the file has for "True"
        for row, pair in zip(rows, answers, strict=True)
        if all(isinstance(answer, str) and answer.strip() for answer in pair)
    ]
    assert len(answered) > 900
    found = load_comparisons(write_jsonl(tmp_path, *answered), to_comparison=mapper)
    assert 0 < len(without_ties(found)) < len(found) == len(answered)
