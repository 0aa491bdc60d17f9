"""Questions about facts that can be looked up: an invented town, rows of your own, the Factbook.

The town of Brindlemere is invented, so no model can know anything about it: what a model answers
without searching is a guess, and what it answers with it was found.
"""

import gzip
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from cookbook.envs.problems import ask
from cookbook.errors import ConfigError, DataError
from cookbook.grading import exact_match
from cookbook.rl import Problem, Task
from cookbook.rows import FieldError, Row, read_rows, text_field
from cookbook.search import Passage
from cookbook.tools import Tool, ToolEnv

BUNDLED = "brindlemere"
MAX_PASSAGE_CHARS = 300


@dataclass(frozen=True)
class Fact:
    """One thing about one entity, and how to ask for it."""

    entity: str
    topic: str
    question: str
    answers: tuple[str, ...]
    """All that count as right; the first is the one to show."""


@dataclass(frozen=True)
class Corpus:
    """Passages to search, and facts that are found in them."""

    passages: Sequence[Passage]
    facts: Sequence[Fact]

    @property
    def entities(self) -> list[str]:
        """What the facts are about, without repeats."""
        return list(dict.fromkeys(fact.entity for fact in self.facts))


def load_corpus(source: str = BUNDLED) -> Corpus:
    """Return a corpus.

    Args:
        source: "brindlemere"; a .jsonl file of rows with the fields entity, topic, text, question
            and answers (a list); or a folder or .jsonl.gz file of country profiles as in
            `factbook.jsonl.gz`, one a line with name and sections.
    Raises:
        DataError: no such file, or a bad row.
    """
    if source == BUNDLED:
        return _from_rows(Path(str(files("cookbook") / "data" / f"{BUNDLED}.jsonl")))
    path = Path(source).expanduser()
    path = path / "factbook.jsonl.gz" if path.is_dir() else path
    return _factbook(path) if path.suffix == ".gz" else _from_rows(path)


def fact_task(
    corpus: Corpus,
    *,
    n_test_entities: int,
    seed: int,
    tools: Sequence[Tool] = (),
    max_turns: int = 3,
) -> Task:
    """Return a question for each fact; whole entities are held out.

    Args:
        corpus: the facts.
        n_test_entities: how many entities are held out with all their facts. They can be searched
            like the others.
        seed: decides which, and the order of the questions.
        tools: what may be called; none: the question must be answered at once.
        max_turns: replies of an episode, the answer included.
    Raises:
        ConfigError: nothing would be left to train on.
    """
    entities = corpus.entities
    if not 0 <= n_test_entities < len(entities):
        raise ConfigError(
            f"n_test_entities={n_test_entities}: there are {len(entities)}, and some must be left "
            "to train on."
        )
    rng = random.Random(f"facts, seed {seed}")
    held_out = set(rng.sample(entities, n_test_entities))
    facts = rng.sample(list(corpus.facts), len(corpus.facts))
    make = partial(_problem, tools=tools, max_turns=max_turns)
    return Task(
        "facts",
        train=[make(fact) for fact in facts if fact.entity not in held_out],
        test=[make(fact) for fact in facts if fact.entity in held_out],
    )


def fact_messages(fact: Fact) -> list[dict[str, Any]]:
    """Return the question as the model reads it."""
    return ask(f"{fact.question} Reply with the answer only.")


def _problem(fact: Fact, tools: Sequence[Tool], max_turns: int) -> Problem:
    make_env = partial(
        ToolEnv,
        messages=fact_messages(fact),
        grade=partial(exact_match, fact.answers),
        offered=tools,
        max_turns=max_turns,
    )
    return Problem(fact.question, make_env)


def _from_rows(path: Path) -> Corpus:
    passages, facts = [], []
    for where, row in read_rows(path):
        try:
            entity, topic, text, question = (
                text_field(row, name) for name in ("entity", "topic", "text", "question")
            )
            facts.append(Fact(entity, topic, question, _answers(row)))
        except FieldError as error:
            raise DataError(f"{where}, {error}") from None
        passages.append(Passage(entity, text))
    if not facts:
        raise DataError(f"{path.name} has no rows. Give at least one fact a line.")
    return Corpus(passages, facts)


def _answers(row: Row) -> tuple[str, ...]:
    answers = row.get("answers")
    if not isinstance(answers, list) or not answers or not all(isinstance(a, str) for a in answers):
        raise FieldError("answers", f"expected a list of texts, got {answers!r:.60}.")
    return tuple(answers)


def _factbook(path: Path) -> Corpus:
    if not path.is_file():
        raise DataError(f"There is no file {str(path)!r}. Give the path of factbook.jsonl.gz.")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        profiles = [json.loads(line) for line in lines]
    passages = [passage for profile in profiles for passage in _passages(profile)]
    return Corpus(passages, [fact for profile in profiles for fact in _country_facts(profile)])


def _passages(profile: Mapping[str, Any]) -> Iterator[Passage]:
    """Yield each field of a profile as a passage, its long ones cut."""
    name = profile["name"]
    for fields in profile["sections"].values():
        for field, value in fields.items():
            text = f"{name}, {field}: {_flat(value)}"
            yield Passage(f"{name}, {field}", text[:MAX_PASSAGE_CHARS])


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name.strip()}: {_flat(part)}" for name, part in value.items())
    return " ".join(str(value).split())


def _country_facts(profile: Mapping[str, Any]) -> Iterator[Fact]:
    """Yield the facts whose field holds one plain value."""
    name, sections = profile["name"], profile["sections"]
    government = sections.get("Government", {})
    capital = _field(government, "Capital", "name")
    if capital and not re.search(r"[;,(:/]", capital):
        yield Fact(name, "capital", f"What is the capital of {name}?", (capital,))
    code = _field(sections.get("Communications", {}), "Internet country code")
    if re.fullmatch(r"\.[a-z]{2}", code):
        question = f"What is the internet country code of {name}?"
        yield Fact(name, "internet country code", question, (code,))
    year = re.match(r"(?:\d{1,2} \w+ )?(\d{4}) \(", _field(government, "Independence"))
    if year:
        question = f"In which year did {name} become independent?"
        yield Fact(name, "independence", question, (year[1],))


def _field(section: Mapping[str, Any], *names: str) -> str:
    value: Any = section
    for name in names:
        value = value.get(name, "") if isinstance(value, Mapping) else ""
    return value.strip() if isinstance(value, str) else ""
