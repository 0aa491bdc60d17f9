"""Stored rollouts as one HTML page to browse: no server, no network, readable without scripts."""

import json
from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from cookbook.analysis.rollouts import Record, question_of
from cookbook.analysis.wording import number

PAGE = "rollouts.html"
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 62rem;
  padding: 0 1rem; color: #222; background: #fff }
details { border: 1px solid #ccc; border-radius: 6px; margin: .4rem 0; padding: .3rem .7rem }
summary { cursor: pointer } summary small { color: #555 }
pre { white-space: pre-wrap; margin: .4rem 0; padding: .4rem .6rem; background: #f5f5f5 }
pre.sampled { background: #e8f1f8; border-left: 4px solid #0072B2 }
.reward { display: inline-block; min-width: 4.5rem; font-variant-numeric: tabular-nums }
form { position: sticky; top: 0; background: #fff; padding: .6rem 0; border-bottom: 1px solid #ccc }
form label { margin-right: 1rem } .failure { color: #A33 }
"""
_SCRIPT = """
const form = document.querySelector('form'), count = document.querySelector('output');
form.hidden = false;
function filter() {
  const { step, low, high, text } = form.elements; let shown = 0;
  for (const part of document.querySelectorAll('section')) {
    let any = false;
    for (const episode of part.querySelectorAll('details')) {
      const reward = Number(episode.dataset.reward);
      const fits = (!step.value || part.dataset.step === step.value)
        && !(low.value && reward < Number(low.value))
        && !(high.value && reward > Number(high.value))
        && episode.textContent.toLowerCase().includes(text.value.toLowerCase());
      episode.hidden = !fits; any ||= fits; shown += fits;
    }
    part.hidden = !any;
  }
  count.value = shown + ' episodes';
}
form.addEventListener('input', filter); form.addEventListener('submit', e => e.preventDefault());
filter();
"""


def write_page(records: Sequence[Record], title: str, file: Path) -> None:
    """Write a page of the episodes to `file`, grouped by split and step, to filter and to search.

    Args:
        records: from `read_rollouts`.
        title: the run's name.
        file: where to.
    """
    by_step = [
        (key, list(members))
        for key, members in groupby(records, lambda record: (record["split"], record["step"]))
    ]
    names = [_step_name(*key) for key, _ in by_step]
    options = "".join(f"<option>{escape(name)}</option>" for name in names)
    sections = "".join(
        f'<section data-step="{escape(name)}"><h2>{escape(name)}</h2>'
        f"{''.join(map(_episode, members))}</section>"
        for name, (_, members) in zip(names, by_step, strict=True)
    )
    file.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>Rollouts of {escape(title)}</h1><p>What the model sampled has a blue edge; the "
        "advantage says how much better an episode was than the others of its problem.</p>"
        f'<form hidden><label>step <select name="step"><option value="">all</option>{options}'
        '</select></label><label>reward from <input name="low" type="number" step="any" size="5">'
        '</label><label>to <input name="high" type="number" step="any" size="5"></label>'
        '<label>text <input name="text" type="search"></label><output></output></form>'
        f"{sections}<script>{_SCRIPT}</script></html>",
        encoding="utf-8",
    )


def _step_name(split: str, step: int) -> str:
    return f"{'held out' if split == 'test' else 'training'}, after {step} steps"


def _episode(record: Record) -> str:
    problem = escape(str(record["problem"]))
    if "failure" in record:
        reason = f"<pre>{escape(record['failure'])}</pre>"
        return f'<details class="failure"><summary>failed · {problem}</summary>{reason}</details>'
    advantage = record["advantage"]
    told = "" if advantage is None else f" · advantage {advantage:+.2f}"
    metrics = ", ".join(f"{name} {number(value)}" for name, value in record["metrics"].items())
    ending = "" if record["ending"] == "done" else f" · ended by {record['ending']}"
    messages = "".join(
        _message(message, sampled=index >= record["opening"] and message["role"] == "assistant")
        for index, message in enumerate(record["messages"])
    )
    return (
        f'<details data-reward="{record["reward"]}"><summary><span class="reward">'
        f"{number(record['reward'])}</span>{escape(_first_line(record['turns'][-1]['text']))}<br>"
        f"<small>{escape(_first_line(question_of(record)))} · {escape(metrics)}{told}{ending}"
        f"</small></summary>{messages}</details>"
    )


def _first_line(text: str) -> str:
    line = " ".join(text.split()) or "(empty)"
    return line if len(line) <= 110 else line[:109] + "…"


def _message(message: Record, sampled: bool) -> str:
    calls = message.get("tool_calls")
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = json.dumps(content)
    text = content + (f"\n{json.dumps(calls)}" if calls else "")
    kind = "sampled" if sampled else "read"
    return f'<pre class="{kind}"><b>{message["role"]}</b>\n{escape(text)}</pre>'
