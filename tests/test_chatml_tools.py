"""Tools and calls in plain ChatML: written, parsed, and written again."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from cookbook.chatml_tools import calls_text, parse_calls
from cookbook.errors import DataError
from cookbook.models import DEFAULT_MODEL
from cookbook.rendering import get_renderer, render_training
from cookbook.supervised import build_datums

TOOLS = [
    {"name": "search", "description": "Look up.", "parameters": {"type": "object"}},
]


@pytest.fixture(scope="module")
def tokenizer(model_dir):
    return AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture(scope="module")
def renderer(tokenizer):
    return get_renderer(tokenizer, DEFAULT_MODEL)


def call(name="search", **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def encoded(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


def parsed(tokenizer, text):
    content, calls = parse_calls(tokenizer, encoded(tokenizer, text))
    return content, [(str(c.status), c.name, c.arguments) for c in calls]


def test_a_system_message_keeps_its_text_before_the_tools(tokenizer, renderer):
    question = {"role": "user", "content": "Hi"}
    alone = tokenizer.decode(renderer.render_ids([question], tools=TOOLS))
    assert alone.startswith("<|im_start|>system\nYou can call tools:\n<tools>[")
    assert json.dumps(TOOLS) in alone
    assert "SmolLM" not in alone, "the default system line gives way"
    both = [{"role": "system", "content": "Be kind."}, question]
    assert tokenizer.decode(renderer.render_ids(both, tools=TOOLS)) == alone.replace(
        "You can call", "Be kind.\n\nYou can call", 1
    )
    assert renderer.render_ids([question], tools=[]) == renderer.render_ids([question])


def test_nothing_about_tools_is_content(tokenizer, renderer):
    both = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    rendered = renderer.render(both, tools=TOOLS)
    marked = zip(rendered.token_ids, rendered.is_content, strict=True)
    content = [token for token, is_content in marked if is_content]
    assert tokenizer.decode(content) == "Be kind.Hi"


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        ("no call", "no call", []),
        (
            '<tool_call>[{"name": "f", "arguments": {"x": 1}}]</tool_call>',
            "",
            [("ok", "f", {"x": 1})],
        ),
        (
            'a <tool_call>[{"name": "f"}, {"name": "g", "arguments": "y"}]</tool_call> b',
            "a  b",
            [("ok", "f", {}), ("ok", "g", "y")],
        ),
        (
            '<tool_call>{"name": "f"}</tool_call>\n<tool_call>\n{"name": "g"}\n</tool_call>',
            "\n",
            [("ok", "f", {}), ("ok", "g", {})],
        ),
        ("<tool_call>[]</tool_call>", "", []),
        ("<tool_call></tool_call>", "", [("invalid_json", None, None)]),
        ("<tool_call>f(x)</tool_call>", "", [("invalid_json", None, None)]),
        ("<tool_call>" + "[" * 2000 + "</tool_call>", "", [("invalid_json", None, None)]),
        ('<tool_call>[{"name": "f"}]', "", [("unclosed_block", None, None)]),
        ('<tool_call>[{"arguments": {}}, 3]</tool_call>', "",
         [("missing_name", None, {}), ("malformed_structure", None, None)]),
        ('<tool_call>[{"name": 3}]</tool_call>', "", [("missing_name", None, {})]),
        ("a </tool_call> b", "a </tool_call> b", []),
    ],
)  # fmt: skip
def test_every_attempt_is_told_with_what_is_wrong(tokenizer, text, content, calls):
    assert parsed(tokenizer, text) == (content, calls)


def test_calls_are_looked_for_only_where_tools_are_offered(tokenizer, renderer):
    text = '<tool_call>[{"name": "f"}]</tool_call>'
    plain = renderer.parse_response(encoded(tokenizer, text))
    assert (plain.content, plain.tool_calls) == (text, [])
    assert renderer.parse_response(encoded(tokenizer, text), tools=TOOLS).tool_calls[0].name == "f"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(min_size=1, max_size=8),
            st.dictionaries(st.text(max_size=8), json_values, max_size=3),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_what_is_written_is_parsed_again(pairs):
    calls = [call(name, **{}) | {"function": {"name": name, "arguments": a}} for name, a in pairs]
    text = calls_text(calls)
    if any(tag in text[11:-12] for tag in ("<tool_call>", "</tool_call>")):
        return
    found = json.loads(text.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    assert [(one["name"], one["arguments"]) for one in found] == pairs


def test_a_conversation_with_calls_is_trained_on_what_the_model_writes(tokenizer, renderer):
    calls = [call(query="Ada pet"), call(query="Ada")]
    conversation = [
        {"role": "user", "content": "Pet of Ada?"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "name": "search", "content": "Ada has a goat."},
        {"role": "assistant", "content": "goat"},
    ]
    tokens, weights = render_training(renderer, conversation, tools=TOOLS)
    trained = [token for token, weight in zip(tokens, weights, strict=True) if weight]
    written = (
        '<tool_call>[{"name": "search", "arguments": {"query": "Ada pet"}}, '
        '{"name": "search", "arguments": {"query": "Ada"}}]</tool_call>'
    )
    assert tokenizer.decode(trained) == f"{written}<|im_end|>goat<|im_end|>"
    assert "<tools>" in tokenizer.decode(tokens)
    (datum,) = build_datums(renderer, [conversation], tools=TOOLS)
    assert datum.model_input.to_ints() == tokens[:-1]


@pytest.mark.parametrize(
    "bad", [{}, {"function": {"name": "f"}}, {"function": {"arguments": {}}}, 7]
)
def test_a_call_without_name_or_arguments_is_refused(renderer, bad):
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [bad]},
    ]
    with pytest.raises(DataError, match=r"Message 1 \(assistant\), field 'tool_calls'"):
        renderer.render(messages)


def test_arguments_may_be_json_already(renderer, tokenizer):
    given = [{"function": {"name": "f", "arguments": '{"x": 1}'}}]
    assert calls_text(given) == '<tool_call>[{"name": "f", "arguments": {"x": 1}}]</tool_call>'
