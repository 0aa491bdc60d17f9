import asyncio
import json
from pathlib import Path

import datasets
import pytest

from cookbook.envs import math_task
from cookbook.envs.math_sets import INSTRUCTION, MATH_CONFIGS
from cookbook.errors import ConfigError, DataError
from tests.envs.players import answered, is_correct, question_of

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def write_jsonl(path, rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def gsm8k_row(n):
    return {"question": f"What is {n} + 0?", "answer": f"{n} + 0 = <<{n}+0={n}>>{n}\n#### {n:,}"}


def math_row(n):
    return {
        "problem": f"Halve {n}.",
        "solution": rf"So $\boxed{{\frac{{{n}}}{{2}}}}$.",
        "level": "1",
    }


def questions(part):
    return [question_of(problem).removesuffix(INSTRUCTION) for problem in part]


@pytest.fixture
def folder(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [gsm8k_row(n) for n in range(20)])
    write_jsonl(tmp_path / "test.jsonl", [gsm8k_row(n) for n in range(1000, 1010)])
    return tmp_path


# ---- local files


def test_a_folder_with_a_test_file(folder):
    task = math_task("gsm8k", n_train=15, n_test=4, seed=0, source=folder)
    assert questions(task.test) == [f"What is {n} + 0?" for n in range(1000, 1004)]
    assert len(set(questions(task.train))) == 15
    assert task.test[0].name == "gsm8k: test.jsonl line 1"
    assert task.test[0].tag == "gsm8k"
    again = math_task("gsm8k", n_train=15, n_test=4, seed=0, source=folder)
    other = math_task("gsm8k", n_train=15, n_test=4, seed=1, source=folder)
    assert questions(task.train) == questions(again.train) != questions(other.train)


def test_a_file_is_divided(folder):
    path = folder / "train.jsonl"
    task = math_task("gsm8k", n_train=15, n_test=5, seed=0, source=path)
    assert len({*questions(task.train), *questions(task.test)}) == 20


def test_no_question_is_on_both_sides_or_twice(folder):
    rows = [gsm8k_row(n) for n in (1, 1, 2, 1000, 1001)]
    write_jsonl(folder / "train.jsonl", rows)
    task = math_task("gsm8k", n_train=2, n_test=2, seed=0, source=folder)
    assert sorted(questions(task.train)) == ["What is 1 + 0?", "What is 2 + 0?"]
    with pytest.raises(ConfigError, match="n_train=3 and n_test=2, but there are 2 questions"):
        math_task("gsm8k", n_train=3, n_test=2, seed=0, source=folder)


def test_the_conversation_and_the_grade(folder):
    problem = math_task("gsm8k", n_train=5, n_test=1, seed=0, source=folder).test[0]
    messages = asyncio.run(problem.make_env().start())
    assert [m["role"] for m in messages] == ["user", "assistant", "user"]
    assert "strawberry" in messages[0]["content"]
    assert messages[1]["content"].endswith(r"\boxed{3}.")
    assert messages[2]["content"] == "What is 1000 + 0?" + r" Write the answer in \boxed{}."
    assert answered(problem, r"\boxed{1,000}").reward == 1
    assert answered(problem, r"\boxed{1001}").reward == 0
    assert answered(problem, "1000").reward == pytest.approx(-0.1)


def test_math_takes_the_box_of_the_solution(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [math_row(n) for n in range(1, 9)])
    task = math_task("math", n_train=7, n_test=1, seed=0, source=path)
    number = int(questions(task.test)[0].removeprefix("Halve ").removesuffix("."))
    assert is_correct(task.test[0], rf"It is \boxed{{{number / 2}}}.")
    assert not is_correct(task.test[0], rf"It is \boxed{{{number + 1}}}.")


@pytest.mark.parametrize(
    ("name", "bad", "words"),
    [
        ("gsm8k", {"question": "q"}, r"line 2, field 'answer': it is missing"),
        ("gsm8k", {"answer": "#### 1"}, r"line 2, field 'question': it is missing"),
        ("gsm8k", {"question": 7, "answer": "#### 1"}, r"line 2, field 'question': .*got int 7"),
        (
            "gsm8k",
            {"question": "q", "answer": "just 7"},
            r"line 2, field 'answer': expected a line '#### <number>', got 'just 7'. Mend the row",
        ),
        (
            "math",
            {"problem": "q", "solution": r"\boxed{7"},
            r"line 2, field 'solution': expected a \\boxed\{...\}, got '\\\\boxed\{7'",
        ),
        ("deepmath", {"question": "q", "final_answer": " "}, r"field 'final_answer': expected an"),
        ("polaris", {"problem": "q", "answer": None}, r"line 2, field 'answer': .*got nothing"),
        ("gsm8k", "{", r"rows.jsonl line 2: expected one JSON object"),
    ],
)
def test_bad_rows_name_file_line_and_field(tmp_path, name, bad, words):
    good = {
        "gsm8k": gsm8k_row(1),
        "math": math_row(1),
        "deepmath": {"question": "x", "final_answer": "1"},
        "polaris": {"problem": "x", "answer": "1"},
    }
    path = write_jsonl(tmp_path / "rows.jsonl", [good[name], bad])
    with pytest.raises(DataError, match=words):
        math_task(name, n_train=1, n_test=0, seed=0, source=path)


def test_missing_files(tmp_path):
    with pytest.raises(DataError, match=r"There is no file .*train.jsonl"):
        math_task("gsm8k", n_train=1, n_test=0, seed=0, source=tmp_path)
    with pytest.raises(ConfigError, match=r"no set 'gsm'. Allowed: gsm8k, math"):
        math_task("gsm", n_train=1, n_test=0, seed=0, source=tmp_path)


# ---- sets on the hub: made-up rows in their columns


@pytest.fixture
def hub(monkeypatch):
    """Serve `hub[(id, config or None, split)] = rows` in place of the hub."""
    served = {}

    def load_dataset(source, config=None, *, split):
        if (source, config, split) not in served:
            raise ConnectionError(f"Couldn't reach '{source}' on the Hub.\nmore")
        return datasets.Dataset.from_list(served[source, config, split])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return served


def test_gsm8k_from_the_hub(hub):
    hub["openai/gsm8k", "main", "train"] = [gsm8k_row(n) for n in range(10)]
    hub["openai/gsm8k", "main", "test"] = [gsm8k_row(n) for n in range(90, 95)]
    task = math_task("gsm8k", n_train=10, n_test=5, seed=0)
    assert questions(task.test) == [f"What is {n} + 0?" for n in range(90, 95)]
    assert task.test[0].name == "gsm8k: openai/gsm8k main test row 1"


def test_math_from_the_hub_keeps_math_500_out(hub):
    hub["HuggingFaceH4/MATH-500", None, "test"] = [math_row(n) for n in (3, 5)]
    for i, config in enumerate(MATH_CONFIGS):
        start = 100 * i
        for split, numbers in (("train", (1, 2, 3)), ("test", (4, 5, 6))):
            rows = [math_row(start + n) for n in numbers]
            hub["EleutherAI/hendrycks_math", config, split] = rows
    task = math_task("math", n_train=7 * 6 - 2, n_test=2, seed=0)
    assert questions(task.test) == ["Halve 3.", "Halve 5."]
    assert not {"Halve 3.", "Halve 5."} & set(questions(task.train))
    hub["HuggingFaceH4/MATH-500", None, "test"].append(math_row(-1))
    with pytest.raises(DataError, match="1 of 3 problems of MATH-500 are not in MATH"):
        math_task("math", n_train=1, n_test=1, seed=0)


@pytest.mark.parametrize(
    ("name", "source", "fields"),
    [
        ("deepmath", "zwhe99/DeepMath-103K", ("question", "final_answer")),
        ("polaris", "POLARIS-Project/Polaris-Dataset-53K", ("problem", "answer")),
    ],
)
def test_sets_without_a_test_split(hub, name, source, fields):
    hub[source, None, "train"] = [
        dict(zip(fields, (f"q{n}", str(n)), strict=True)) for n in range(9)
    ]
    task = math_task(name, n_train=6, n_test=3, seed=0)
    assert {*questions(task.train), *questions(task.test)} == {f"q{n}" for n in range(9)}
    assert len(asyncio.run(task.train[0].make_env().start())) == 1  # no example is shown
    assert is_correct(task.test[0], rf"\boxed{{{questions(task.test)[0][1:]}}}")


def test_without_a_network(hub):
    with pytest.raises(DataError, match=r"Cannot load 'openai/gsm8k'.*reach.*use local .jsonl"):
        math_task("gsm8k", n_train=1, n_test=1, seed=0)


# ---- real sets, where they are


def shared(*parts):
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip("the shared data folder is not there")
    return path


def test_real_gsm8k():
    task = math_task("gsm8k", n_train=7000, n_test=1319, seed=0, source=shared("gsm8k"))
    assert is_correct(task.test[0], r"She makes \boxed{18} dollars.")
    assert not is_correct(task.test[0], r"\boxed{26}")


def test_real_math_500_is_equal_to_itself():
    path = shared("math", "math500.jsonl")
    task = math_task("math", n_train=500, n_test=0, seed=0, source=path)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    solutions = {row["problem"].strip(): row["solution"] for row in rows}
    pairs = zip(task.train, questions(task.train), strict=True)
    assert all(is_correct(problem, solutions[question]) for problem, question in pairs)
