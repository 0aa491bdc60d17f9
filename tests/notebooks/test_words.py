"""Every word of the field is explained where a newcomer first meets it."""

from pathlib import Path

import nbformat
import pytest

from cookbook.notebooks.terms import TERMS, glossary_page, unlinked_terms

ROOT = Path(__file__).parents[2]
FIRST = ("start_here", "sl_loop", "rl_loop")


def markdown_of(name: str) -> str:
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_the_page_is_current():
    assert (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8") == glossary_page()


@pytest.mark.parametrize("name", FIRST)
def test_each_word_is_linked_where_it_first_appears(name):
    assert unlinked_terms(markdown_of(name)) == []


def test_the_first_notebooks_use_every_word_of_the_glossary():
    text = "\n".join(map(markdown_of, FIRST))
    assert [term.name for term in TERMS if f"glossary.md#{term.anchor})" not in text] == []


def test_words_are_distinct_and_no_form_belongs_to_two():
    assert len({term.anchor for term in TERMS}) == len(TERMS)
    for term in TERMS:
        others = [other.name for other in TERMS if other.pattern.fullmatch(term.name)]
        assert others == [term.name]


LINKED = "A [reward](../docs/glossary.md#reward) is a score. Rewards come later."


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        (LINKED, []),
        ("Two [rewards of one](../docs/glossary.md#reward) answer.", []),
        ("A reward is a score. " + LINKED, ["reward"]),
        ("A [reward](../docs/glossary.md#advantage) is a score.", ["reward"]),
        ("[A thing](x.md) and a reward, [more](../docs/glossary.md#reward)", ["reward"]),
        ("# A reward in a heading\n\n`reward` and $reward$\n\n```\nreward\n```", []),
        ("Rewarding is no word of ours, unrewarded neither.", []),
        ("REWARDED, whatever the case", ["reward"]),
    ],
)
def test_what_counts_as_linked(text, missing):
    assert unlinked_terms(text) == missing
