"""Token boxes: one for each token, marked with and without colour, everything escaped."""

import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from cookbook.errors import DataError
from cookbook.token_boxes import show_token_boxes


@pytest.fixture(scope="module")
def tokenizer(model_dir: Path):
    return AutoTokenizer.from_pretrained(model_dir)


def test_each_token_has_a_box_and_marked_ones_are_bold_and_in_brackets(tokenizer):
    tokens = tokenizer.encode("a < b & <script>alert('x')</script>\nso")
    shades = [0.0] * len(tokens)
    shades[1], shades[2] = 1.0, 0.25
    view = show_token_boxes(tokenizer, tokens, shades, title="<b>trained</b>")
    markup = view._repr_html_()
    assert markup.count("<span ") == len(tokens)
    assert "<script" not in markup.lower()
    assert markup.startswith("<div><b>&lt;b&gt;trained&lt;/b&gt;</b><div style=")
    assert [re.sub("<[^>]+>", "", bold) for bold in re.findall(r"<b><span.*?</b>", markup)] == [
        " &lt;"
    ]
    assert re.findall(r"rgba\(0,114,178,([\d.]+)\)", markup) == ["0.55", "0.14"]
    assert "⏎\n" in markup
    told = repr(view)
    assert told.startswith("<b>trained</b>\na|⟦ <⟧| b|")
    assert re.sub(r"[|⟦⟧]", "", told.partition("\n")[2]) == tokenizer.decode(tokens)


def test_shades_below_zero_have_another_colour_and_other_brackets(tokenizer):
    tokens = tokenizer.encode("good bad")
    assert len(tokens) == 2
    view = show_token_boxes(tokenizer, tokens, [0.25, -1.0])
    assert re.findall(r"background:rgba\((.*?)\)", view._repr_html_()) == [
        "0,114,178,0.14",
        "213,94,0,0.55",
    ]
    assert repr(view) == "\ngood|⟪ bad⟫"


def test_parts_of_a_character_share_a_box(tokenizer):
    tokens = tokenizer.encode("日本")
    assert len(tokens) > 2
    view = show_token_boxes(tokenizer, tokens, [0.0] * (len(tokens) - 1) + [1.0])
    assert "".join(text for text, _ in view.boxes) == "日本"
    assert "\ufffd" not in repr(view)
    assert view.boxes[-1][1] == 1.0


def test_a_text_cut_inside_a_character_is_shown_to_its_end(tokenizer):
    tokens = tokenizer.encode("x 日")[:-1]
    view = show_token_boxes(tokenizer, tokens, [0.0] * len(tokens))
    assert repr(view).startswith("\nx")


@pytest.mark.parametrize(
    ("shades", "words"),
    [([1.0], "2 tokens but 1 shades"), ([0.0, 1.5], r"A shade is 1\.5"), ([-1.5, 0], r"is -1\.5;")],
)
def test_unfit_shades(tokenizer, shades, words):
    with pytest.raises(DataError, match=words):
        show_token_boxes(tokenizer, [1, 2], shades)
