"""Is an answer right? Find the answer in a text, and compare it as a mathematician would."""

from cookbook.grading.exact import exact_match
from cookbook.grading.extract import all_numbers, gsm8k_answer, last_boxed, last_number
from cookbook.grading.grader import MathGrader

__all__ = [
    "MathGrader",
    "all_numbers",
    "exact_match",
    "gsm8k_answer",
    "last_boxed",
    "last_number",
]
