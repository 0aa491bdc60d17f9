"""The renderer for plain ChatML, the one layout that the `renderers` library has no class for.

SmolLM2, Qwen2.5 and many small models lay turns out this way. `cookbook.rendering.get_renderer`
chooses it; use that rather than this module. Shape: T tokens of one conversation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from renderers import (
    Message,
    ParsedResponse,
    RenderedTokens,
    ToolSpec,
    attribute_text_segments,
    extract_message_tool_names,
    reject_assistant_in_extension,
)

from cookbook.chatml_tools import calls_text, parse_calls, tools_text
from cookbook.errors import ConfigError, DataError

_IM_START, _IM_END = "<|im_start|>", "<|im_end|>"

# A template is plain ChatML if these come out as `_chatml_text` writes them. They hold what other
# templates treat specially: outer blanks, thinking blocks, a second system turn, no system turn.
_PROBES: list[list[dict[str, str]]] = [
    [{"role": "user", "content": " a \n"}, {"role": "assistant", "content": "\nb "}],
    [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nt\n</think>\n\nb"},
        {"role": "system", "content": "s2"},
        {"role": "user", "content": ""},
    ],
]


class ChatMLRenderer:
    """Renderer (protocol `renderers.Renderer`) for templates that are plain ChatML.

    Token for token what the tokenizer's own chat template gives, for every content string; tools
    and calls, which it lacks, are written as text by `cookbook.chatml_tools`. Two consequences are
    kept on purpose, as the library's other renderers keep them:

    - control strings such as a literal "<|im_end|>" inside a message become control tokens, as
      they do in the template; clean untrusted text before it gets here;
    - text that starts with blanks can share its first token with the newline of the header. Such
      a token belongs to the header (a model that answers the prompt can never emit it).

    Raises:
        ConfigError: the tokenizer's chat template is not plain ChatML.
    """

    is_prefix_stable = True  # every turn is written the same way, whatever follows it

    def __init__(self, tokenizer: Any) -> None:
        default_system = chatml_default_system(tokenizer)
        if default_system is None:
            raise ConfigError(
                f"The chat template of {tokenizer.name_or_path!r} is not plain ChatML. "
                "Use get_renderer(tokenizer, model_name), which picks one that fits."
            )
        self._tokenizer = tokenizer
        self._default_system = default_system
        self._im_start, self._im_end = tokenizer.convert_tokens_to_ids([_IM_START, _IM_END])

    def render(
        self,
        messages: list[Message],
        *,
        tools: list[ToolSpec] | None = None,
        add_generation_prompt: bool = False,
    ) -> RenderedTokens:
        """Return tokens (T,) with, for each, its message, and whether it is content and sampled.

        Raises:
            DataError: no messages, or one that the template would drop silently.
        """
        if not messages:
            raise DataError("No messages to render: got an empty list. Give at least one turn.")
        out = _Parts(self._tokenizer)
        offered, given = tools_text(tools) if tools else "", messages[0].get("role") == "system"
        if not given and (offered or self._default_system):
            self._turn(out, -1, "system", "" if offered else self._default_system, offered)
        for index, message in enumerate(messages):
            text = _content_text(message, index)
            self._turn(out, index, message["role"], text, offered if given and not index else "")
        if add_generation_prompt:
            self._open_turn(out)
        return out.finish(messages)

    def render_ids(
        self,
        messages: list[Message],
        *,
        tools: list[ToolSpec] | None = None,
        add_generation_prompt: bool = False,
    ) -> list[int]:
        """Return the tokens (T,) alone."""
        return self.render(
            messages, tools=tools, add_generation_prompt=add_generation_prompt
        ).token_ids

    def parse_response(
        self,
        token_ids: list[int],
        *,
        tools: list[ToolSpec] | None = None,
        prompt_ids: list[int] | None = None,
    ) -> ParsedResponse:
        """Return the text of sampled tokens (T,) up to the stop token, blanks kept.

        Calls are looked for only where tools are offered; they are taken out of the text.
        """
        end = token_ids.index(self._im_end) if self._im_end in token_ids else len(token_ids)
        if tools:
            content, calls = parse_calls(self._tokenizer, token_ids[:end])
            return ParsedResponse(content=content, tool_calls=calls)
        return ParsedResponse(content=decode(self._tokenizer, token_ids[:end]))

    def get_stop_token_ids(self) -> list[int]:
        """Return the token that ends a turn."""
        return [self._im_end]

    def bridge_to_next_turn(
        self,
        previous_prompt_ids: list[int],
        previous_completion_ids: list[int],
        new_messages: list[Message],
        *,
        tools: list[ToolSpec] | None = None,
    ) -> RenderedTokens | None:
        """Return previous prompt + completion, verbatim, + new turns + the next answer's header.

        A completion cut off by its token limit is closed first. None where an exact extension is
        impossible: no new message, an assistant message among them, or tokens after the stop token.
        """
        if not previous_prompt_ids or not new_messages:
            return None
        closed = self._im_end in previous_completion_ids
        if (
            closed
            and previous_completion_ids.index(self._im_end) < len(previous_completion_ids) - 1
        ):
            return None
        if reject_assistant_in_extension(new_messages):
            return None
        out = _Parts(self._tokenizer)
        out.ids(previous_prompt_ids + previous_completion_ids)
        out.ids([] if closed else [self._im_end])
        out.text([("\n", False)], -1)
        for index, message in enumerate(new_messages):
            text = _content_text(message, index)
            self._turn(out, index, message["role"], text, bridged=True)
        self._open_turn(out)
        return out.finish(new_messages)

    def _turn(
        self,
        out: "_Parts",
        index: int,
        role: str,
        content: str,
        offered: str = "",
        bridged: bool = False,
    ) -> None:
        sampled = role == "assistant" and not bridged
        out.ids([self._im_start], index)
        segments = [(f"{role}\n", False), (content, index >= 0)]
        if offered:
            segments.append((f"\n\n{offered}" if content else offered, False))
        out.text(segments, index, sampled=sampled)
        out.ids([self._im_end], index, content=sampled, sampled=sampled)
        out.text([("\n", False)], index)

    def _open_turn(self, out: "_Parts") -> None:
        out.ids([self._im_start])
        out.text([("assistant\n", False)], -1)


class _Parts:
    """Grows the parallel lists of `RenderedTokens`."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._result = RenderedTokens()

    def ids(
        self, ids: Sequence[int], index: int = -1, content: bool = False, sampled: bool = False
    ) -> None:
        self._result.token_ids.extend(ids)
        self._result.message_indices.extend([index] * len(ids))
        self._result.is_content.extend([content] * len(ids))
        self._result.sampled_mask.extend([sampled] * len(ids))

    def text(self, segments: list[tuple[str, bool]], index: int, sampled: bool = False) -> None:
        # Header and content are encoded together: the template's tokens may span both.
        pairs = attribute_text_segments(self._tokenizer, segments)
        if not pairs.has_content_attribution:
            raise ConfigError(
                f"The tokenizer {self._tokenizer.name_or_path!r} reports no character offsets, so "
                "headers and content cannot be told apart. Load it with use_fast=True."
            )
        for token, content in pairs:
            self.ids([token], index, content, sampled and content)

    def finish(self, messages: list[Message]) -> RenderedTokens:
        self._result.message_roles = [message["role"] for message in messages]
        self._result.message_tool_names = extract_message_tool_names(messages)
        return self._result


def chatml_default_system(tokenizer: Any) -> str | None:
    """Return the system line a plain ChatML template adds by itself ("" for none), else None.

    None means that the template is not plain ChatML: it was tried on conversations which
    templates with special rules write differently.
    """
    try:
        text = tokenizer.apply_chat_template(_PROBES[0], tokenize=False)
        opening = f"{_IM_START}system\n"
        start = text.index(f"{_IM_START}user\n")
        default = text[len(opening) : start - len(f"{_IM_END}\n")] if start else ""
        texts = [
            tokenizer.apply_chat_template(probe, tokenize=False, add_generation_prompt=prompt)
            for probe in _PROBES
            for prompt in (False, True)
        ]
    except Exception:  # templates raise their own kinds for what they refuse; then it isn't ChatML
        return None
    expected = [_chatml_text(probe, default, p) for probe in _PROBES for p in (False, True)]
    return default if texts == expected else None


def _chatml_text(messages: list[dict[str, str]], default_system: str, prompt: bool) -> str:
    if default_system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": default_system}, *messages]
    turns = [f"{_IM_START}{m['role']}\n{m['content']}{_IM_END}\n" for m in messages]
    return "".join(turns) + (f"{_IM_START}assistant\n" if prompt else "")


def _content_text(message: Mapping[str, Any], index: int) -> str:
    content = message.get("content")
    where = f"Message {index} ({message.get('role')})"
    if message.get("reasoning_content"):
        raise DataError(
            f"{where}: 'reasoning_content' is set, but this chat template would drop it silently. "
            "Write it into 'content' as text, or use a model whose renderer supports it."
        )
    try:
        calls = calls_text(message["tool_calls"]) if message.get("tool_calls") else ""
    except DataError as error:
        raise DataError(f"{where}, {error}") from None
    if isinstance(content, str):
        return content + calls
    if isinstance(content, list) and all(part.get("type") == "text" for part in content):
        return "".join(part["text"] for part in content) + calls
    raise DataError(
        f"{where}, field 'content': expected text or a list of text parts, got {content!r:.80}."
    )


def decode(tokenizer: Any, tokens: Sequence[int]) -> str:
    """Return the exact text of tokens (T,), control tokens and blanks kept."""
    return tokenizer.decode(
        list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
