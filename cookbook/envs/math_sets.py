r"""GSM8K, MATH, DeepMath and Polaris: real questions, with the answer in a ``\boxed{}``.

Rows come from the hub, or from local files of the same fields. Fields, splits and overlap as in the
public tinker-cookbook, so that figures can be compared.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cookbook.envs.problems import ask, check_sizes, turn
from cookbook.errors import ConfigError, DataError
from cookbook.grading import MathGrader, gsm8k_answer, last_boxed
from cookbook.rl import Grade, Problem, QuestionEnv, Task
from cookbook.rows import FieldError, Row, load_from_hub, read_rows, text_field

Rows = Iterable[tuple[str, Row]]
"""Where each row stands, and the row."""

INSTRUCTION = r" Write the answer in \boxed{}."
EXAMPLE = turn(
    "How many times does the letter r occur in strawberry?" + INSTRUCTION,
    r"The letters are s, t, r, a, w, b, e, r, r, y. The third, the eighth and the ninth are r. "
    r"That makes \boxed{3}.",
)
_GRADER = (
    MathGrader()
)  # one worker for all sets; it starts with the first question it is needed for


@dataclass(frozen=True, kw_only=True)
class MathSet:
    """How one data set becomes questions with answers."""

    question: str
    """Field of the question."""
    answer: str
    """Field of the answer, or of a solution that contains it."""
    extract: Callable[[str], str | None] = str.strip
    """From the text in the answer's field to the answer; None if it has none."""
    form: str = "an answer"
    """What `extract` looks for, in words."""
    hub: Callable[[str], Rows]
    """From "train" or "test" to rows; a set without a test split has none for "test"."""
    few_shot: bool
    """Whether a solved example is shown first."""


def _hub_rows(source: str, split: str, config: str | None = None) -> Iterator[tuple[str, Row]]:
    rows = load_from_hub(source, split, config, instead="local .jsonl files: source=<folder>")
    where = f"{source} {config} {split}" if config else f"{source} {split}"
    return ((f"{where} row {n}", row) for n, row in enumerate(rows, start=1))


def _hub_gsm8k(split: str) -> Rows:
    return _hub_rows("openai/gsm8k", split, "main")


MATH_CONFIGS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)


def _hub_math(split: str) -> Rows:
    """Return MATH-500, or the other 12,000 problems of MATH: 7,500 to train on, 4,500 to test."""
    held_out = list(_hub_rows("HuggingFaceH4/MATH-500", "test"))
    if split == "test":
        return held_out
    names = {row.get("problem") for _, row in held_out}
    parts = [(part, config) for part in ("train", "test") for config in MATH_CONFIGS]
    rows = [
        row
        for part, config in parts
        for row in _hub_rows("EleutherAI/hendrycks_math", part, config)
    ]
    found = names & {row.get("problem") for _, row in rows}
    if found != names:
        raise DataError(
            f"{len(names - found)} of {len(names)} problems of MATH-500 are not in MATH as the hub "
            "has it, so that they cannot be kept out of training. Use local files that fit."
        )
    return [(where, row) for where, row in rows if row.get("problem") not in names]


def _hub_train_only(source: str) -> Callable[[str], Rows]:
    return lambda split: _hub_rows(source, "train") if split == "train" else []


MATH_SETS = {
    "gsm8k": MathSet(
        question="question",
        answer="answer",
        extract=gsm8k_answer,
        form="a line '#### <number>'",
        hub=_hub_gsm8k,
        few_shot=True,
    ),
    "math": MathSet(
        question="problem",
        answer="solution",
        extract=last_boxed,
        form=r"a \boxed{...}",
        hub=_hub_math,
        few_shot=True,
    ),
    "deepmath": MathSet(
        question="question",
        answer="final_answer",
        hub=_hub_train_only("zwhe99/DeepMath-103K"),
        few_shot=False,
    ),
    "polaris": MathSet(
        question="problem",
        answer="answer",
        hub=_hub_train_only("POLARIS-Project/Polaris-Dataset-53K"),
        few_shot=False,
    ),
}


def math_task(
    name: str,
    *,
    n_train: int,
    n_test: int,
    seed: int,
    source: str | Path | None = None,
    format_weight: float = 0.1,
    grader: MathGrader = _GRADER,
) -> Task:
    r"""Return questions of a data set.

    An answer is well-formed if it has a ``\boxed{}``, and correct if the last one equals the set's.

    Args:
        name: one of `MATH_SETS`.
        n_train: questions to train on, drawn with `seed`.
        n_test: questions held out: the first of the test split; of a set without one, drawn with
            `seed`. Questions that occur twice are kept once, and never on both sides.
        seed: decides which questions, and the order of those to train on.
        source: a folder with train.jsonl and perhaps test.jsonl, or one .jsonl or .parquet file,
            in place of the hub.
        format_weight: what an answer without a box loses.
        grader: decides equality.
    Raises:
        ConfigError: no such set, or more questions than it has.
        DataError: missing files, an unreachable hub, or a bad row (file, line and field).
    """
    if name not in MATH_SETS:
        raise ConfigError(f"There is no set {name!r}. Allowed: {', '.join(MATH_SETS)}.")
    check_sizes(n_train, n_test)
    kind = MATH_SETS[name]
    rows = kind.hub if source is None else partial(_local_rows, Path(source).expanduser())
    train, test = (_questions(kind, rows(split)) for split in ("train", "test"))
    chosen = _choose(train, test, n_train, n_test, random.Random(f"{name}, seed {seed}"))
    known = {**train, **test}
    make = partial(_problem, name, grader=grader, format_weight=format_weight)
    trained, held_out = ([make(q, *known[q]) for q in questions] for questions in chosen)
    return Task(name, trained, held_out)


def grade_boxed(grader: MathGrader, gold: str, answer: str) -> Grade:
    """Return whether the last box of `answer` equals `gold`, and whether there is a box."""
    boxed = last_boxed(answer)
    if boxed is None:
        return Grade(correct=False, well_formed=False)
    return Grade(correct=grader.is_correct(boxed, gold))


def _problem(
    name: str, question: str, where: str, gold: str, *, grader: MathGrader, format_weight: float
) -> Problem:
    make_env = partial(
        QuestionEnv,
        messages=ask(question + INSTRUCTION, [EXAMPLE] if MATH_SETS[name].few_shot else []),
        grade=partial(grade_boxed, grader, gold),
        format_weight=format_weight,
    )
    return Problem(f"{name}: {where}", make_env, tag=name)


def _choose(
    train: Iterable[str], test: Iterable[str], n_train: int, n_test: int, rng: random.Random
) -> tuple[list[str], list[str]]:
    """Return the questions to train on and those held out."""
    held_out = list(test)
    tested = set(held_out)
    left = [question for question in train if question not in tested]
    rng.shuffle(left)
    if not held_out:
        held_out, left = left[:n_test], left[n_test:]
    if len(held_out) < n_test or len(left) < n_train:
        raise ConfigError(
            f"n_train={n_train} and n_test={n_test}, but there are {len(left)} questions to train "
            f"on and {len(held_out)} to hold out. Ask for fewer."
        )
    return left[:n_train], held_out[:n_test]


def _local_rows(source: Path, split: str) -> Rows:
    """Return the rows of a split; a set without a test file, and a single file, have no "test"."""
    path = source / f"{split}.jsonl" if source.is_dir() else source
    absent = split == "test" and (path == source or not path.exists())
    return [] if absent else read_rows(path)


def _questions(kind: MathSet, rows: Rows) -> dict[str, tuple[str, str]]:
    """Return question -> (where it stands, answer), the first of those that occur twice."""
    questions: dict[str, tuple[str, str]] = {}
    for where, row in rows:
        try:
            question, answer = text_field(row, kind.question).strip(), _answer(kind, row)
        except FieldError as error:
            raise DataError(f"{where}, {error}") from None
        questions.setdefault(question, (where, answer))
    return questions


def _answer(kind: MathSet, row: Row) -> str:
    text = text_field(row, kind.answer)
    answer = kind.extract(text)
    if not answer:
        raise FieldError(kind.answer, f"expected {kind.form}, got {text[-60:]!r}. Mend the row.")
    return answer
