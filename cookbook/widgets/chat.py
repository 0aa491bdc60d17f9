"""A chat with one checkpoint, or with several side by side."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

import tinker
from renderers import Renderer

from cookbook.checkpointing import ready
from cookbook.frontend import draws_widgets
from cookbook.service import connect
from cookbook.widgets.shown import show_static, show_widget

_COLUMN = "flex:1 1 16em;border:1px solid rgba(128,128,128,.45);border-radius:6px;padding:.4em .8em"
_SAID = "white-space:pre-wrap;margin:.4em 0"


@dataclass
class Conversation:
    """What was said to one checkpoint, and by it."""

    name: str
    client: Any
    renderer: Renderer
    params: tinker.SamplingParams
    messages: list[Any] = field(default_factory=list)
    cut_off: set[int] = field(default_factory=set)
    """Which messages are answers that reached `max_tokens`."""

    def ask(self, question: str) -> Any:
        """Return the future of the answer to a question."""
        asked = [*self.messages, {"role": "user", "content": question}]
        tokens = tinker.ModelInput.from_ints(
            self.renderer.render_ids(asked, add_generation_prompt=True)
        )
        return self.client.sample(tokens, num_samples=1, sampling_params=self.params)

    def hear(self, question: str, future: Any) -> None:
        """Wait for the answer and add it with its question."""
        sequence = future.result().sequences[0]
        answer = self.renderer.parse_response(sequence.tokens).content or ""
        self.messages.append({"role": "user", "content": question})
        if sequence.stop_reason == "length":
            self.cut_off.add(len(self.messages))
        self.messages.append({"role": "assistant", "content": answer})

    def said(self) -> list[tuple[str, str]]:
        """Return role and text of each message; an ellipsis ends an answer that was cut off."""
        return [
            (message["role"], message["content"] + " …" * (index in self.cut_off))
            for index, message in enumerate(self.messages)
        ]

    def markup(self) -> str:
        """Return it as an HTML column."""
        said = "".join(
            f'<div style="{_SAID}"><small><b>{role}</b></small>\n{escape(text)}</div>'
            for role, text in self.said()
        )
        return f'<div style="{_COLUMN}"><b>{escape(self.name)}</b>{said}</div>'

    def __str__(self) -> str:
        said = "\n".join(f"{role}: {text}" for role, text in self.said())
        return f"[{self.name}]\n{said}"


def chat(
    checkpoints: Mapping[str, Any],
    renderer: Renderer,
    question: str,
    *,
    service: tinker.ServiceClient | None = None,
    max_tokens: int = 96,
    temperature: float = 0.0,
    seed: int = 0,
) -> None:
    """Show a box to chat with checkpoints side by side, the first question already asked.

    Without a page that can answer, the question and the answers are all there is.

    Args:
        checkpoints: by the name to show: a sampling client, or the `tinker://` path of a
            checkpoint's sampler weights.
        renderer: how their base model writes conversations, from `cookbook.rendering`.
        question: the first message of the user.
        service: what loads paths; from `cookbook.service.connect`, which is called if need be.
        max_tokens: longest answer.
        temperature: of sampling; 0 always takes the likeliest token.
        seed: of sampling.
    Raises:
        tinker.APIStatusError: the server does not have a checkpoint.
    """
    stop = renderer.get_stop_token_ids()
    params = tinker.SamplingParams(
        max_tokens=max_tokens, temperature=temperature, seed=seed, stop=stop
    )
    conversations = []
    for name, checkpoint in checkpoints.items():
        if isinstance(checkpoint, str):
            service = service or connect()
            checkpoint = ready(service.create_sampling_client(model_path=checkpoint))
        conversations.append(Conversation(name, checkpoint, renderer, params))
    ask_all(conversations, question)
    markup, text = side_by_side(conversations), "\n\n".join(map(str, conversations))
    if draws_widgets():
        show_widget(_box(conversations), markup, text)
    else:
        show_static(markup, text)


def ask_all(conversations: list[Conversation], question: str) -> None:
    """Ask all the same, every request sent before any answer is awaited."""
    futures = [conversation.ask(question) for conversation in conversations]
    for conversation, future in zip(conversations, futures, strict=True):
        conversation.hear(question, future)


def side_by_side(conversations: list[Conversation]) -> str:
    """Return the conversations as HTML columns, below each other where the page is narrow."""
    columns = "".join(conversation.markup() for conversation in conversations)
    return f'<div style="display:flex;flex-wrap:wrap;gap:.6em">{columns}</div>'


def _box(conversations: list[Conversation]) -> Any:
    import ipywidgets

    said = ipywidgets.HTML(side_by_side(conversations))
    entry = ipywidgets.Text(placeholder="Your message", layout={"flex": "1"})
    send = ipywidgets.Button(description="Send", button_style="primary")
    anew = ipywidgets.Button(description="New conversation")

    def on_send(*_: Any) -> None:
        question = entry.value.strip()
        if not question or send.disabled:
            return
        send.disabled, send.description, entry.value = True, "Answering …", ""
        try:
            ask_all(conversations, question)
            said.value = side_by_side(conversations)
        except Exception as error:  # to the reader: a callback's error would only be in a log
            said.value = f"{side_by_side(conversations)}<pre>{escape(str(error))}</pre>"
        finally:
            send.disabled, send.description = False, "Send"

    def on_anew(*_: Any) -> None:
        for conversation in conversations:
            conversation.messages.clear()
            conversation.cut_off.clear()
        said.value = side_by_side(conversations)

    send.on_click(on_send)
    anew.on_click(on_anew)
    entry.on_msg(lambda _widget, content, _buffers: content.get("event") == "submit" and on_send())
    return ipywidgets.VBox([said, ipywidgets.HBox([entry, send, anew])])
