"""What a page of JupyterLab gets, and what everybody else gets instead."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from transformers import AutoTokenizer

from cookbook import frontend, widgets
from cookbook.errors import DataError
from cookbook.loop import Progress
from cookbook.models import DEFAULT_MODEL
from cookbook.notebooks.faults import WIDGET
from cookbook.notebooks.publish import execute
from cookbook.rendering import get_renderer
from cookbook.widgets import episodes, monitor
from cookbook.widgets.chat import Conversation, _box, ask_all
from cookbook.widgets.episodes import ADVANTAGE, LOGPROB, Filter, extremes, shades, view_episode

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tokenizer(model_dir: Path) -> Any:
    return AutoTokenizer.from_pretrained(model_dir)


def record(tokenizer: Any, step: int, problem: str, reward: float, **changed: Any) -> dict:
    """An episode as a run stores it."""
    text = f"It is {reward:g} <b>"
    tokens = tokenizer.encode(text)
    turn = {"text": text, "finished": True, "reward": reward, "prompt_tokens": 3}
    turn |= {"tokens": tokens, "logprobs": [0.0, *[-9.0] * (len(tokens) - 1)]}
    said = [{"role": "user", "content": f"{problem} & so?"}, {"role": "assistant", "content": text}]
    return {
        "step": step,
        "split": "train",
        "group": 0,
        "problem": problem,
        "advantage": reward - 0.5,
        "reward": reward,
        "ending": "done",
        "metrics": {"correct": reward},
        "opening": 1,
        "messages": said,
        "turns": [turn],
        **changed,
    }


@pytest.fixture(scope="module")
def records(tokenizer: Any) -> list[dict]:
    rows = [(0, "a", 0.0), (0, "b", 1.0), (1, "a", 0.0), (1, "a", 1.0), (1, "b", 0.5)]
    held_out = record(tokenizer, 2, "c", 1.0, split="test", advantage=None, ending="max_tokens")
    return [*(record(tokenizer, *row) for row in rows), held_out]


@pytest.fixture(scope="module")
def log_path(records: list[dict], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that stored the episodes, and one that failed."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "rollouts").mkdir()
    for split, step in {(r["split"], r["step"]) for r in records}:
        rows = [r for r in records if (r["split"], r["step"]) == (split, step)]
        failed = {"step": step, "split": split, "group": 1, "problem": "a", "failure": "hangs"}
        lines = "".join(json.dumps(row) + "\n" for row in [*rows, failed])
        (folder / "rollouts" / f"{split}_{step:06d}.jsonl").write_text(lines)
    return folder


# who looks


@pytest.mark.parametrize(
    ("kernel", "own", "starters", "live"),
    [
        (True, True, False, True),  # a page of JupyterLab
        (True, False, False, False),  # papermill in a terminal
        (True, True, True, False),  # papermill in a cell of a page
        (False, True, False, False),  # python in a cell of a page
    ],
)
def test_live_is_a_kernel_that_a_jupyter_server_started(
    monkeypatch: pytest.MonkeyPatch, kernel: bool, own: bool, starters: bool, live: bool
) -> None:
    monkeypatch.setattr(frontend, "in_notebook", lambda: kernel)
    monkeypatch.delenv(frontend.SESSION, raising=False)
    if own:
        monkeypatch.setenv(frontend.SESSION, "notebooks/x.ipynb")
    environment = {frontend.SESSION: "notebooks/x.ipynb"} if starters else {}
    monkeypatch.setattr(frontend, "_environment_of_the_starter", lambda: environment)
    assert frontend.is_live.__wrapped__() == live


BAR = "from tqdm.auto import tqdm\nfor _ in tqdm(range(3), disable=False): pass"
LIVE = """from pathlib import Path
from cookbook.notebooks import Live
from tests import test_loop
with Live("x", "Done.") as live:
    test_loop.run(Path({log!r}), on_step=lambda m: live.update("<b>state</b>"))"""
BROWSE = """from transformers import AutoTokenizer
from cookbook import widgets
widgets.browse_rollouts({run!r}, AutoTokenizer.from_pretrained({model!r}))"""
KERNELS: dict[str, Callable[[Any, Path], None]] = {
    "static": execute,
    "page": lambda notebook, folder: NotebookClient(
        notebook, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute(env={**frontend.os.environ, frontend.SESSION: "notebooks/x.ipynb"}),
}


@pytest.fixture(scope="module", params=KERNELS)
def executed(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    log_path: Path,
    model_dir: Path,
) -> tuple[str, list[Any]]:
    """Cells executed by `make notebooks`, and in a kernel as a page has it."""
    folder = tmp_path_factory.mktemp("kernel")
    sources = [
        "import cookbook.service",
        BAR,
        LIVE.format(log=str(folder / "log")),
        BROWSE.format(run=str(log_path), model=str(model_dir)),
    ]
    notebook: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        if request.param == "static":  # also when somebody starts it from a page
            patch.setenv(frontend.SESSION, "notebooks/x.ipynb")
        KERNELS[request.param](notebook, folder)
    return request.param, notebook.cells


def test_progress_bars_of_libraries_are_not_stored_as_widgets(executed: tuple) -> None:
    kind, cells = executed
    bars = [output for output in cells[1].outputs if WIDGET in output.get("data", {})]
    assert bool(bars) == (
        kind == "page" and frontend.importlib.util.find_spec("ipywidgets") is not None
    )


def test_the_run_is_told_above_the_picture_in_a_page_only(executed: tuple) -> None:
    kind, cells = executed
    texts = [output.data["text/plain"] for output in cells[2].outputs]
    told = ["Finished: 5 of 5 steps · 1 s", ""] if kind == "page" else []
    assert sorted(texts) == sorted([*told, "state", "Done."])
    assert "button" not in json.dumps(cells[2].outputs)


def test_the_browser_is_stored_as_its_static_form(executed: tuple) -> None:
    kind, cells = executed
    (shown,) = cells[3].outputs
    assert shown.data["text/html"].startswith("<div>6 episodes are stored.")
    assert "VBox" not in shown.data["text/plain"]
    has_widgets = frontend.importlib.util.find_spec("ipywidgets") is not None
    assert (WIDGET in shown.data) == (kind == "page" and has_widgets)


# the run that is going on


def test_how_far_a_run_is_in_words(log_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.5
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = Progress(
        log_path=log_path, n_steps=3, first_step=0, done=0, began_s=100.0, changed_s=100.0
    )
    assert monitor.told(progress) == "step 1 of 3 · 1 s"
    now = 109.0
    progress._change(2)
    assert monitor.told(progress) == "step 3 of 3 · 10 s · about 5 s left"
    markup, text = monitor.status(progress)
    assert 'value="2" max="3"' in markup
    assert "It is 1 &lt;b&gt;" in markup
    assert "Sampled in step 2:" in text
    assert "b & so?" in text
    progress._change(3)
    assert monitor.told(progress).startswith("all 3 steps done")
    progress._change(3, "finished")
    assert monitor.told(progress) == "Finished: 3 of 3 steps · 10 s"


# episodes


def test_filter(records: list[dict]) -> None:
    def found(**wanted: Any) -> list[int]:
        return [i for i, row in enumerate(records) if Filter(**wanted).fits(row)]

    assert found() == [0, 1, 2, 3, 4, 5]
    assert found(split="train", step=1) == [2, 3, 4]
    assert found(problem="a", lowest=0.5) == [3]
    assert found(lowest=0.5, highest=0.5) == [4]


def test_extremes_are_of_the_last_training_step(records: list[dict]) -> None:
    assert [row["reward"] for row in extremes(records, 2)] == [1.0, 0.0]
    assert [row["reward"] for row in extremes(records, 9)] == [1.0, 0.5, 0.0]
    assert extremes(records[5:], 1) == records[5:]


def test_shades(records: list[dict]) -> None:
    turn = {"logprobs": [0.0, -0.6931471805599453, -50.0]}
    assert shades(turn, 0.3, LOGPROB) == pytest.approx([0, 0.5, 1])
    assert shades(turn, -0.5, ADVANTAGE) == [-0.5] * 3
    assert shades(turn, 7.0, ADVANTAGE) == [1.0] * 3
    assert shades(turn, None, ADVANTAGE) == [0.0] * 3


def test_an_episode_as_html_and_as_text(records: list[dict], tokenizer: Any) -> None:
    view = view_episode(records[3], tokenizer, ADVANTAGE)
    assert view.heading == "reward 1 · advantage +0.50 · a · training, after 1 steps · correct 1"
    assert "a &amp; so?" in view.markup()
    assert "<b></b>" not in view.markup()
    assert "rgba(0,114,178,0.28)" in view.markup()
    assert "⟦It⟧|⟦ is⟧" in str(view)
    assert "⟪It⟫" in str(view_episode(records[2], tokenizer, ADVANTAGE))
    assert "It|⟦ is⟧" in str(view_episode(records[2], tokenizer, LOGPROB))
    assert "ended by max_tokens" in view_episode(records[5], tokenizer, LOGPROB).heading


def test_static_browser_in_a_terminal(
    log_path: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    widgets.browse_rollouts(log_path, tokenizer, n_static=2)
    told = capsys.readouterr().out
    assert told.startswith("6 episodes are stored. Here are 2 of the last step")
    assert told.count("· advantage ") == 2
    with pytest.raises(DataError, match="holds no rollouts"):
        widgets.browse_rollouts(log_path / "rollouts", tokenizer)


def test_browser_controls(records: list[dict], tokenizer: Any) -> None:
    pytest.importorskip("ipywidgets")
    from cookbook.widgets.browser import RolloutBrowser

    browser = RolloutBrowser(records, tokenizer)
    assert browser.moment.value == "training, after 1 steps"
    assert browser.shown.value.startswith("<b>1 of 3: reward 0 ")
    browser.next.click()
    assert browser.shown.value.startswith("<b>2 of 3: reward 1 ")
    browser.previous.click()
    browser.previous.click()  # there is none before the first
    assert browser.place.value == 1
    browser.problem.value = "b"
    assert browser.shown.value.startswith("<b>1 of 1: reward 0.5 ")
    browser.reward.value = (1.0, 1.0)
    assert browser.shown.value == "No episode fits."
    browser.moment.value = "all"
    assert "training, after 0 steps" in browser.shown.value
    assert episodes.LEGENDS[ADVANTAGE] in browser.shown.value
    browser.colour.value = LOGPROB
    assert episodes.LEGENDS[LOGPROB] in browser.shown.value
    browser.problem.value, browser.place.value = "all", 3
    assert "ended by max_tokens" in browser.shown.value


# chat


class Sampler:
    """Answers with its name and the number of tokens it read."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self.tokenizer, self.name, self.fails = tokenizer, name, False

    def sample(self, prompt: Any, num_samples: int, sampling_params: Any) -> Any:
        self.prompt = self.tokenizer.decode(prompt.to_ints())
        answer = self.tokenizer.encode(f"{self.name} <i>")
        cut = sampling_params.max_tokens <= len(answer)
        tokens = answer if cut else [*answer, sampling_params.stop[0]]
        sequence = SimpleNamespace(tokens=tokens, stop_reason="length" if cut else "stop")
        return SimpleNamespace(result=lambda: self._result(sequence))

    def _result(self, sequence: Any) -> Any:
        if self.fails:
            raise RuntimeError("no <server>")
        return SimpleNamespace(sequences=[sequence])


@pytest.fixture(scope="module")
def renderer(tokenizer: Any) -> Any:
    return get_renderer(tokenizer, DEFAULT_MODEL)


@pytest.fixture
def samplers(tokenizer: Any) -> dict[str, Sampler]:
    return {name: Sampler(tokenizer, name) for name in ("before", "after")}


def test_static_chat_asks_each_checkpoint(
    samplers: dict[str, Sampler], renderer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    widgets.chat(samplers, renderer, "Why & how?")
    told = capsys.readouterr().out
    assert "[before]\nuser: Why & how?\nassistant: before <i>\n" in told
    assert "[after]\nuser: Why & how?\nassistant: after <i>\n" in told
    assert "Why & how?" in samplers["after"].prompt


def test_chat_loads_a_path(
    samplers: dict[str, Sampler], renderer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    service: Any = SimpleNamespace(create_sampling_client=lambda model_path: samplers[model_path])
    widgets.chat({"tuned": "after"}, renderer, "Why?", service=service)
    assert "[tuned]\nuser: Why?\nassistant: after <i>" in capsys.readouterr().out


def conversations_of(samplers: dict[str, Sampler], max_tokens: int = 9) -> list[Conversation]:
    import tinker

    renderer = get_renderer(samplers["before"].tokenizer, DEFAULT_MODEL)
    stop = renderer.get_stop_token_ids()
    params = tinker.SamplingParams(max_tokens=max_tokens, stop=stop)
    return [Conversation(name, client, renderer, params) for name, client in samplers.items()]


def test_a_conversation_goes_on_and_is_escaped(samplers: dict[str, Sampler]) -> None:
    told = conversations_of(samplers, max_tokens=1)
    ask_all(told, "One <script>?")
    ask_all(told, "Two?")
    assert "One <script>?" in samplers["before"].prompt
    assert "before <i>" in samplers["before"].prompt
    assert "…" not in samplers["before"].prompt
    assert told[0].said()[1] == ("assistant", "before <i> …")
    assert "<script" not in told[0].markup()
    assert "<i>" not in told[0].markup()


def test_chat_controls(samplers: dict[str, Sampler]) -> None:
    pytest.importorskip("ipywidgets")
    told = conversations_of(samplers)
    box = _box(told)
    said, row = box.children
    entry, send, anew = row.children
    send.click()  # nothing to say
    assert told[0].messages == []
    entry.value = "One?"
    send.click()
    assert entry.value == ""
    assert said.value.count("One?") == 2
    entry.value = "Two?"
    entry._handle_custom_msg({"event": "submit"}, [])  # the Enter key
    assert [message["content"] for message in told[1].messages][::2] == ["One?", "Two?"]
    samplers["after"].fails = True
    entry.value = "Three?"
    send.click()
    assert "no &lt;server&gt;" in said.value
    assert not send.disabled
    assert told[1].messages[-1]["role"] == "assistant"
    anew.click()
    assert "One?" not in said.value
