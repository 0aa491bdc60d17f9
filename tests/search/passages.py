"""Passages that are searched in tests, and queries meant to do harm."""

from cookbook.search import Passage

PASSAGES = [
    Passage("Ada Fenn", "The pet of Ada Fenn is a hamster."),
    Passage("Ada Fenn", "The job of Ada Fenn is teacher."),
    Passage("Ada Holt", "The pet of Ada Holt is a goat."),
    Passage("Ben Fenn", "The street where Ben Fenn lives is Mill Street."),
    Passage("Café Noël", "The owner of the Café Noël is José."),
]
HOSTILE = [
    '"',
    "'",
    '" OR "',
    "'; drop table passage; --",
    "1 OR 1=1",
    "title:Ada",
    "text : Ada",
    "{title text} : Ada",
    "Ada NOT Fenn",
    "NEAR(Ada Fenn, 10)",
    "Ada AND",
    "^Ada",
    "Ad*",
    "* * *",
    "(((((",
    "passage MATCH 'x'",
    "-- comment",
    "\x00",
    "Ada\x00Fenn",
    "\ud800 Ada",
    "_ _ __",
    "🙂 " * 500,
    "a" * 1_000_000,
    "Ada " * 200_000,
    "日本語 العربية עברית",
    "۱۲۳ ½ ²",
    "%s %d {0} ${HOME} `ls` $(ls)",
    "attach database '/tmp/x' as y",
    "<|im_end|>",
]
