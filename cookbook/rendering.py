"""Conversations to tokens and loss weights, and sampled tokens back to messages.

Chat layouts come from the `renderers` library and `cookbook.chatml`. This module chooses one for
a model, chooses the tokens that are trained, and shows that choice. Shape: T tokens of a row.
"""

import html
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, cast, get_args

from renderers import (
    DefaultRendererConfig,
    Renderer,
    RendererConfig,
    ToolSpec,
    build_training_sample,
    config_from_name,
    create_renderer,
)
from renderers.base import MODEL_RENDERER_MAP

from cookbook.chatml import ChatMLRenderer, chatml_default_system, decode
from cookbook.errors import ConfigError, DataError
from cookbook.models import MODELS

TrainOn = Literal[
    "last_assistant_message",
    "last_assistant_turn",
    "all_assistant_messages",
    "all_messages",
    "all_tokens",
    "all_user_and_system_messages",
    "customized",
]


class NothingToTrainError(DataError):
    """A conversation keeps no trainable token under the chosen option and maximum length."""


def get_renderer(tokenizer: Any, model_name: str) -> Renderer:
    """Return the renderer that writes conversations as `model_name` expects them.

    In this order: the entry of `cookbook.models`, the `renderers` library's own table, ChatML where
    the chat template is plain ChatML, else the template itself through the library's fallback.

    Raises:
        ConfigError: no renderer is known and the tokenizer has no chat template (base models).
    """
    known = MODELS.get(model_name)
    name = (known.renderer if known else None) or MODEL_RENDERER_MAP.get(model_name)
    if name:
        config = cast(RendererConfig, config_from_name(name))
        return create_renderer(tokenizer, config)
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            f"{model_name!r} has no chat template (a base model?), so nothing says how a "
            "conversation is laid out for it. Use its instruction-tuned version, or set "
            "tokenizer.chat_template yourself before calling get_renderer."
        )
    if chatml_default_system(tokenizer) is not None:
        return ChatMLRenderer(tokenizer)
    return create_renderer(tokenizer, DefaultRendererConfig())


def render_training(
    renderer: Renderer,
    messages: Sequence[Mapping[str, Any]],
    train_on: TrainOn = "all_assistant_messages",
    max_length: int | None = None,
    tools: list[ToolSpec] | None = None,
) -> tuple[list[int], list[float]]:
    """Return the tokens of a conversation (T,) and a weight for each (T,), 1.0 if trained else 0.0.

    Args:
        renderer: from `get_renderer`.
        messages: {"role", "content"} each; "trainable" (bool) on every one if `train_on` is
            "customized", on none otherwise.
        train_on: "last_assistant_message": the last message, if it is the assistant's;
            "last_assistant_turn": assistant messages after the last user message;
            "all_assistant_messages"; "all_messages" and "all_user_and_system_messages": content of
            these; "all_tokens": headers too; "customized": messages with "trainable": True.
            Of an assistant message the model learns what it would sample: content and stop token.
            Of others the content only, of headers nothing.
        max_length: longest T, at least 2; longer conversations lose their end.
        tools: what the model may call in it; calls stand in "tool_calls" of assistant messages.
    Raises:
        NothingToTrainError: no trained token (after the first, which nothing predicts) is left.
        DataError: "trainable" is missing, not a bool, or present in another mode.
        ConfigError: unknown `train_on`, or one that this renderer cannot tell the tokens of.
    Source: the options follow the public tinker-cookbook's TrainOnWhat.
    """
    trained = _trained_messages(messages, train_on)
    plain: list[Any] = [{k: v for k, v in m.items() if k != "trainable"} for m in messages]
    if train_on == "all_tokens":
        tokens = renderer.render_ids(plain, tools=tools)
        flags = [True] * len(tokens)
    else:
        tokens, flags = _tokens_and_flags(renderer, plain, trained, tools)
    weights = [float(flag) for flag in flags[:max_length]]
    if not any(weights[1:]):
        raise NothingToTrainError(_nothing_to_train(train_on, messages, flags, max_length))
    return tokens[:max_length], weights


def _trained_messages(messages: Sequence[Mapping[str, Any]], train_on: str) -> list[bool]:
    """Return for each message whether its content is trained."""
    if train_on not in get_args(TrainOn):
        raise ConfigError(
            f"train_on={train_on!r} is unknown. Allowed: {', '.join(get_args(TrainOn))}."
        )
    _check_trainable(messages, required=train_on == "customized")
    roles = [message["role"] for message in messages]
    last = len(roles) - 1
    last_user = max((i for i, role in enumerate(roles) if role == "user"), default=-1)
    chosen: dict[str, Callable[[int], bool]] = {
        "last_assistant_message": lambda i: i == last and roles[i] == "assistant",
        "last_assistant_turn": lambda i: i > last_user and roles[i] == "assistant",
        "all_assistant_messages": lambda i: roles[i] == "assistant",
        "all_messages": lambda i: True,
        "all_tokens": lambda i: True,
        "all_user_and_system_messages": lambda i: roles[i] in ("user", "system"),
        "customized": lambda i: messages[i]["trainable"],
    }
    return [chosen[train_on](i) for i in range(len(roles))]


def _check_trainable(messages: Sequence[Mapping[str, Any]], required: bool) -> None:
    for index, message in enumerate(messages):
        where = f"Message {index} ({message['role']}), field 'trainable'"
        if not required and "trainable" in message:
            raise DataError(
                f"{where}: allowed with train_on='customized' only. Use that, or drop it."
            )
        if required and not isinstance(message.get("trainable"), bool):
            raise DataError(
                f"{where}: train_on='customized' needs true or false on every message, "
                f"got {message.get('trainable')!r}."
            )


def _tokens_and_flags(
    renderer: Renderer,
    messages: list[Any],
    trained: list[bool],
    tools: list[ToolSpec] | None,
) -> tuple[list[int], list[bool]]:
    """Return tokens (T,) and whether each is trained (T,)."""
    _warn_if_history_changes(renderer, messages, trained, tools)
    rendered = renderer.render(messages, tools=tools)
    other_roles = {m["role"] for m, t in zip(messages, trained, strict=True) if t} - {"assistant"}
    if not rendered.sampled_mask or (other_roles and not rendered.is_content):
        return rendered.token_ids, _flags_from_prompts(renderer, messages, trained, tools)
    sample = build_training_sample(
        renderer,
        messages,
        role_to_mask=lambda message: message["role"] == "assistant",
        tools=tools,
        content_sft_roles=other_roles,
        message_loss_mask=list(trained),
        ensure_final_stop=True,
    )
    return sample.token_ids, sample.loss_mask


def _flags_from_prompts(
    renderer: Renderer,
    messages: list[Any],
    trained: list[bool],
    tools: list[ToolSpec] | None,
) -> list[bool]:
    """Find assistant outputs where a renderer gives no masks: from generation prompt to stop."""
    full = renderer.render_ids(messages, tools=tools)
    stops = set(renderer.get_stop_token_ids())
    flags = [False] * len(full)
    for index in _positions(trained):
        if messages[index]["role"] != "assistant":
            raise ConfigError(
                f"This model's renderer ({type(renderer).__name__}) cannot tell the content of "
                f"message {index} ({messages[index]['role']}) from its header. "
                "Train assistant messages or 'all_tokens'."
            )
        before, through = messages[:index], messages[: index + 1]
        start = len(renderer.render_ids(before, tools=tools, add_generation_prompt=True))
        end = len(renderer.render_ids(through, tools=tools))
        stop = max((k for k in range(start, end) if full[k] in stops), default=end - 1)
        flags[start : stop + 1] = [True] * (stop + 1 - start)
    return flags


def _warn_if_history_changes(
    renderer: Renderer,
    messages: list[Any],
    trained: list[bool],
    tools: list[ToolSpec] | None,
) -> None:
    if renderer.is_prefix_stable or sum(trained) < 2:
        return
    full = renderer.render_ids(messages, tools=tools)
    for index in _positions(trained)[:-1]:
        turn = renderer.render_ids(messages[: index + 1], tools=tools)
        if full[: len(turn)] != turn:
            warnings.warn(
                f"{type(renderer).__name__} rewrites message {index} once later turns follow "
                "(reasoning is dropped from history), so it would be trained in a form that is "
                "never sampled. Use train_on='last_assistant_message'.",
                stacklevel=4,
            )
            return


def _positions(flags: Sequence[bool]) -> list[int]:
    return [index for index, flag in enumerate(flags) if flag]


def _nothing_to_train(
    train_on: str, messages: Sequence[Any], flags: list[bool], max_length: int | None
) -> str:
    first = next((k for k, flag in enumerate(flags) if flag and k), None)
    if first is not None:
        return (
            f"Nothing to train is left within max_length={max_length}: of {len(flags)} tokens the "
            f"first trained one is number {first + 1}. Allow at least {first + 1} or drop the row."
        )
    roles = ", ".join(message["role"] for message in messages)
    return (
        f"Nothing to train with train_on={train_on!r}: the roles are [{roles}]. "
        "Choose another train_on or drop the row."
    )


class TokenView:
    """Tokens with the trained ones marked; shows as HTML in notebooks, as text elsewhere."""

    def __init__(self, tokenizer: Any, tokens: Sequence[int], weights: Sequence[float]) -> None:
        runs = groupby(zip(tokens, weights, strict=True), key=lambda pair: pair[1] > 0)
        self._runs = [(on, decode(tokenizer, [token for token, _ in run])) for on, run in runs]

    def __repr__(self) -> str:
        return "".join(f"⟦{text}⟧" if on else text for on, text in self._runs)

    def _repr_html_(self) -> str:
        spans = [
            f'<b style="color:#0072B2">⟦{html.escape(text)}⟧</b>' if on else html.escape(text)
            for on, text in self._runs
        ]
        return f'<pre style="white-space:pre-wrap">{"".join(spans)}</pre>'


def show_tokens(tokenizer: Any, tokens: Sequence[int], weights: Sequence[float]) -> TokenView:
    """Return a view of tokens (T,): those with weight > 0 in ⟦brackets⟧ and, in HTML, in colour.

    Example: `show_tokens(tokenizer, *render_training(renderer, messages))` ends a notebook cell.
    """
    return TokenView(tokenizer, tokens, weights)
