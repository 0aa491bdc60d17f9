"""What the bundled comparisons prefer, measured in a text: a reply that answers, then asks back.

A plain function of the text. No model is asked, so it can judge what a reward model was trained to
judge, independently of it.
"""

import re

MIN_STATEMENT_WORDS = 4
"""Fewer words before the question are no answer."""
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+")


def asks_back(reply: str) -> bool:
    """Return whether a reply answers and then ends with its only question.

    True if the last sentence is a question, no other sentence is one, and statements of at least
    `MIN_STATEMENT_WORDS` words come before it. A reply that only asks, or asks twice, fails.

    Example:
        >>> asks_back("Iron rusts in damp air. Where do you keep your tools?")
        True
        >>> asks_back("Where do you keep your tools?"), asks_back("Why? Iron rusts in damp air.")
        (False, False)
    """
    sentences = [part for part in _SENTENCE_END.split(reply.strip()) if part]
    if not sentences or not sentences[-1].rstrip("\"')]").endswith("?") or reply.count("?") != 1:
        return False
    return sum(len(sentence.split()) for sentence in sentences[:-1]) >= MIN_STATEMENT_WORDS
