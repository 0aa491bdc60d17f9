"""The invented town, rows of one's own, and the Factbook."""

import json
from collections import Counter
from pathlib import Path

import pytest

from cookbook.envs.facts import fact_task, load_corpus
from cookbook.errors import ConfigError, DataError
from cookbook.search import Fts5Index, SearchTool
from tests.envs.players import is_correct, question_of

FACTBOOK = Path(__file__).parents[3] / "shared" / "data" / "factbook"


@pytest.fixture(scope="module")
def town():
    return load_corpus()


def test_the_town_is_consistent(town):
    assert len(town.facts) == len(town.passages) >= 300
    assert len({fact.question for fact in town.facts}) == len(town.facts)
    assert len({(fact.entity, fact.topic) for fact in town.facts}) == len(town.facts)
    for fact, passage in zip(town.facts, town.passages, strict=True):
        assert passage.title == fact.entity
        assert fact.answers[0] in passage.text
        assert fact.entity in fact.question
        assert fact.answers[0] not in fact.question


def test_a_guess_without_searching_is_rarely_right(town):
    """Not even one who knows all the facts but this one does well."""
    by_topic: dict[str, Counter[str]] = {}
    for fact in town.facts:
        by_topic.setdefault(fact.topic, Counter())[fact.answers[0]] += 1
    best = sum(counts.most_common(1)[0][1] for counts in by_topic.values())
    assert best / len(town.facts) < 0.25


def test_how_a_query_is_worded_decides_what_is_found(town):
    index = Fts5Index(town.passages)
    pairs = list(zip(town.facts, town.passages, strict=True))

    def found(query):
        return sum(passage in index.search(query(fact), 2) for fact, passage in pairs) / len(pairs)

    assert found(lambda fact: f"{fact.entity} {fact.topic}") > 0.95
    assert found(lambda fact: fact.question) > 0.95
    assert found(lambda fact: fact.entity) < 0.45
    assert found(lambda fact: fact.topic) < 0.1


def test_whole_entities_are_held_out(town):
    tools = [SearchTool(Fts5Index(town.passages))]
    task = fact_task(town, n_test_entities=8, seed=0, tools=tools)
    assert len(task.train) + len(task.test) == len(town.facts)
    held_out = {f.entity for f in town.facts if f.question in {p.name for p in task.test}}
    trained = {f.entity for f in town.facts if f.question in {p.name for p in task.train}}
    assert len(held_out) == 8
    assert not held_out & trained
    assert [tool["name"] for tool in task.train[0].make_env().tools] == ["search"]
    assert fact_task(town, n_test_entities=8, seed=0).train[0].make_env().tools is None
    for bad in (-1, len(town.entities)):
        with pytest.raises(ConfigError, match=f"n_test_entities={bad}"):
            fact_task(town, n_test_entities=bad, seed=0)


def test_a_question_and_its_grade(town):
    task = fact_task(town, n_test_entities=0, seed=0)
    answers = {fact.question: fact.answers for fact in town.facts}
    for problem in task.train[:40]:
        assert question_of(problem) == f"{problem.name} Reply with the answer only."
        for answer in answers[problem.name]:
            assert is_correct(problem, answer)
        assert not is_correct(problem, "unknown")


def test_rows_of_your_own(tmp_path):
    row = {
        "entity": "Io",
        "topic": "mass",
        "text": "Io is heavy.",
        "question": "How heavy?",
        "answers": ["very"],
    }
    file = tmp_path / "facts.jsonl"
    file.write_text(json.dumps(row))
    corpus = load_corpus(str(file))
    assert corpus.entities == ["Io"]
    for field, value in (("text", None), ("answers", "very"), ("answers", []), ("topic", 7)):
        file.write_text(json.dumps(row | {field: value}))
        with pytest.raises(DataError, match=rf"facts\.jsonl line 1, field '{field}'"):
            load_corpus(str(file))
    file.write_text("")
    with pytest.raises(DataError, match="has no rows"):
        load_corpus(str(file))
    for missing in ("nowhere.jsonl", "nowhere.jsonl.gz"):
        with pytest.raises(DataError, match="There is no file"):
            load_corpus(str(tmp_path / missing))


@pytest.mark.skipif(not FACTBOOK.is_dir(), reason="needs the Factbook in ../shared/data")
def test_the_factbook():
    corpus = load_corpus(str(FACTBOOK))
    assert len(corpus.passages) > 10_000
    assert max(len(passage.text) for passage in corpus.passages) <= 300
    answers = {fact.question: fact.answers for fact in corpus.facts}
    assert answers["What is the capital of Algeria?"] == ("Algiers",)
    assert answers["What is the internet country code of Chad?"] == (".td",)
    assert answers["In which year did Botswana become independent?"] == ("1966",)
    assert len(answers) == len(corpus.facts) > 500
    index = Fts5Index(corpus.passages)
    capitals = [fact for fact in corpus.facts if fact.topic == "capital"]
    found = sum(
        any(fact.answers[0] in p.text for p in index.search(fact.question, 5)) for fact in capitals
    )
    assert found / len(capitals) > 0.9
