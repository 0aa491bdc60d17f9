import pytest

from cookbook.grading import exact_match


@pytest.mark.parametrize("answer", ["The Mill Street.", " mill  street", "MILL STREET"])
def test_form_does_not_count(answer):
    assert exact_match(["Mill Street"], answer)


@pytest.mark.parametrize(
    "answer", ["", "Mill", "Mill Street, I think", "Millstreet", "Hill Street"]
)
def test_everything_else_does(answer):
    assert not exact_match(["Mill Street"], answer)


def test_any_of_the_accepted_answers_is_right():
    assert exact_match(["Mill Street", "Mill"], "mill")
    assert not exact_match([], "mill")
