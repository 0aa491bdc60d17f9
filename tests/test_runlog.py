import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cookbook.errors import ConfigError, CookbookError, DataError
from cookbook.runlog import (
    RunLog,
    lines,
    read_checkpoints,
    read_config,
    read_facts,
    read_metrics,
    unique_log_path,
)
from cookbook.runlog.folder import log_root

CONFIG = {"learning_rate": 1e-4, "num_epochs": 1, "model_name": "org/m", "log_path": None}
STATE = "tinker://run/weights/000001"


@pytest.fixture(autouse=True)
def _log_root(tmp_path, monkeypatch):
    monkeypatch.setenv("COOKBOOK_LOG_ROOT", str(tmp_path / "logs"))


def fill(path, n_steps, config=CONFIG, **options):
    with RunLog.open(path, config, "demo", **options) as log:
        for step in range(n_steps):
            log.log(step, {"train_mean_nll": 3.0 - step})
            log.save_checkpoint(f"{step + 1:06d}", step + 1, state_path=f"{STATE}{step}", epoch=0)
    return log.path


def steps(path):
    return [record["step"] for record in read_metrics(path)]


# --- where a run goes ---------------------------------------------------------------------------


def test_a_fresh_run_gets_its_own_folder_below_the_root(tmp_path):
    paths = {unique_log_path("sl_basic") for _ in range(50)}
    assert len(paths) == 50
    assert all(path.parent == tmp_path / "logs" for path in paths)
    assert fill(None, 1) != fill("", 1)


@pytest.mark.skipif(os.name == "nt", reason="Windows uses its own temporary folder")
def test_the_default_root_is_the_documented_one(monkeypatch):
    monkeypatch.delenv("COOKBOOK_LOG_ROOT")
    assert log_root() == Path("/tmp/tinker-examples")
    monkeypatch.setenv("COOKBOOK_LOG_ROOT", "~/logs")
    assert log_root() == Path.home() / "logs"


def test_a_name_that_is_no_file_name_is_made_one(tmp_path):
    assert unique_log_path("../org/model x").parent == tmp_path / "logs"
    assert unique_log_path("???").name.startswith("run-")


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file; a run needs a folder"):
        RunLog.open(tmp_path / "file", CONFIG, "demo")
    with pytest.raises(ConfigError, match=r"cannot be made.*COOKBOOK_LOG_ROOT"):
        RunLog.open(tmp_path / "file" / "below", CONFIG, "demo")


# --- what is written ----------------------------------------------------------------------------


def test_the_files_hold_what_was_logged(tmp_path):
    with RunLog.open(tmp_path / "run", CONFIG, "demo") as log:
        log.log(0, {"train_mean_nll": np.float32(2.5), "n": np.int64(3), "text": "a", "gap": None})
        log.save_checkpoint("final", 1, STATE, "tinker://s", epoch=1, batch=0, final=True, rng=None)
    assert read_metrics(log.path) == [
        {"step": 0, "train_mean_nll": 2.5, "n": 3, "text": "a", "gap": None}
    ]
    assert read_checkpoints(log.path) == [
        {
            "name": "final",
            "step": 1,
            "state_path": STATE,
            "sampler_path": "tinker://s",
            "epoch": 1,
            "batch": 0,
            "final": True,
        }
    ]
    assert read_config(log.path) == CONFIG
    facts = read_facts(log.path)
    assert facts["name"] == "demo"
    assert "numpy" in facts["versions"]


def test_each_line_is_one_write_and_readable_at_once(tmp_path, monkeypatch):
    with RunLog.open(tmp_path / "run", CONFIG, "demo") as log:
        log.log(0, {"loss": 1.0})
        before = read_metrics(log.path)
        calls = []
        append = lines.append
        monkeypatch.setattr(lines, "append", lambda f, *a, **k: append(Spy(f, calls), *a, **k))
        log.log(1, {"loss": 2.0})
    assert before == [{"step": 0, "loss": 1.0}]
    assert calls == [b'{"step": 1, "loss": 2.0}\n']


class Spy:
    def __init__(self, file, calls, short=False):
        self.file, self.calls, self.short = file, calls, short

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        self.calls.append(data)
        return self.file.write(data[:5] if self.short else data)


def test_a_full_disk_leaves_no_torn_line_in_the_middle(tmp_path):
    path = tmp_path / "m.jsonl"
    with lines.open_for_append(path) as file:
        lines.append(file, {"step": 0})
        with pytest.raises(OSError, match="disk is full"):
            lines.append(Spy(file, [], short=True), {"step": 1})  # type: ignore[arg-type]
        lines.append(file, {"step": 2})
    assert lines.read(path) == [{"step": 0}, {"step": 2}]


def test_non_finite_metrics_stay_valid_json_and_come_back(tmp_path):
    with RunLog.open(tmp_path / "run", CONFIG, "demo") as log:
        log.log(0, {"a": math.nan, "b": math.inf, "c": np.float32(-math.inf)})

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    line = (log.path / "metrics.jsonl").read_text()
    strict = json.loads(line, parse_constant=refuse)
    assert strict == {"step": 0, "a": "NaN", "b": "Infinity", "c": "-Infinity"}
    back = read_metrics(log.path)[0]
    assert math.isnan(back["a"])
    assert (back["b"], back["c"]) == (math.inf, -math.inf)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"step": 3}, "'step'"),
        ({"x": [1, 2]}, "Split lists"),
        ({"x": {"y": 1}}, "Split lists"),
        ({"x": object()}, "expected numbers, text"),
        ({7: 1.0}, "metric 7"),
    ],
)
def test_a_metric_that_is_not_flat_is_refused_and_nothing_is_written(tmp_path, metrics, message):
    with RunLog.open(tmp_path / "run", CONFIG, "demo") as log, pytest.raises(DataError) as caught:
        log.log(0, metrics)
    assert message in str(caught.value)
    assert read_metrics(log.path) == []


@pytest.mark.parametrize("step", [-1, 1.0, True, "1"])
def test_a_step_is_a_whole_number_from_zero(tmp_path, step):
    with RunLog.open(tmp_path / "run", CONFIG, "demo") as log:
        with pytest.raises(DataError, match="whole number"):
            log.log(step, {})
        with pytest.raises(DataError, match="whole number"):
            log.save_checkpoint("x", step, STATE)


def test_a_step_is_logged_once(tmp_path):
    with RunLog.open(tmp_path / "run", CONFIG, "demo") as log:
        log.log(4, {"a": 1})
        for step in (4, 3):
            with pytest.raises(DataError, match="rewind"):
                log.log(step, {"a": 2})
    with RunLog.open(tmp_path / "run", CONFIG, "demo") as log, pytest.raises(DataError):
        log.log(4, {"a": 2})
    assert steps(log.path) == [4]


def test_a_checkpoint_needs_a_path_and_a_closed_log_says_so(tmp_path):
    with RunLog.open(tmp_path / "run", CONFIG, "demo") as log:
        with pytest.raises(DataError, match="nothing could be loaded"):
            log.save_checkpoint("x", 1)
        log.close()
    with pytest.raises(CookbookError, match="Open it again"):
        log.log(0, {})


def test_a_config_value_json_cannot_hold_is_named(tmp_path):
    with pytest.raises(ConfigError, match="config field 'renderer'"):
        RunLog.open(tmp_path / "run", {"renderer": object()}, "demo")
    assert not (tmp_path / "run").exists()


# --- going on -----------------------------------------------------------------------------------


def test_last_checkpoint_is_the_newest_with_the_key(tmp_path):
    with RunLog.open(tmp_path / "run", CONFIG, "demo") as log:
        assert log.last_checkpoint() is None
        log.save_checkpoint("000001", 1, state_path=STATE)
        log.save_checkpoint("000002", 2, sampler_path="tinker://s")
        assert log.last_checkpoint()["name"] == "000001"
        assert log.last_checkpoint("sampler_path")["name"] == "000002"


def test_resume_goes_on_and_rewind_leaves_each_step_once(tmp_path):
    path = fill(tmp_path / "run", 5)
    with RunLog.open(path, CONFIG, "demo") as log:
        log.rewind(3)
        assert steps(path) == [0, 1, 2]
        assert log.last_checkpoint()["step"] == 3
        for step in (3, 4, 5):
            log.log(step, {"again": 1})
    assert steps(path) == [0, 1, 2, 3, 4, 5]
    assert [record["step"] for record in read_checkpoints(path)] == [1, 2, 3]


def test_rewind_to_zero_starts_over(tmp_path):
    path = fill(tmp_path / "run", 2)
    with RunLog.open(path, CONFIG, "demo") as log:
        log.rewind(0)
        assert log.last_checkpoint() is None
    assert steps(path) == []


def test_other_settings_are_refused_with_every_changed_field(tmp_path):
    path = fill(tmp_path / "run", 1, {**CONFIG, "seed": 0, "gone": [1, 2]})
    new = {**CONFIG, "learning_rate": 1e-3, "seed": 0, "extra": "x", "num_epochs": 2}
    with pytest.raises(ConfigError) as caught:
        RunLog.open(path, new, "demo")
    message = str(caught.value)
    assert "learning_rate: 0.0001 there, 0.001 now" in message
    assert "num_epochs: 1 there, 2 now" in message
    assert "gone: [1, 2] there, not set now" in message
    assert "extra: not set there, 'x' now" in message
    assert "seed" not in message
    assert "if_exists='overwrite'" in message
    assert steps(path) == [0]


def test_settings_that_do_not_train_may_change_and_values_compare_as_json(tmp_path):
    old = {**CONFIG, "if_exists": "raise", "wandb_name": "a", "betas": (0.9, 0.95), "p": Path("x")}
    path = fill(tmp_path / "run", 1, {**old, "clip": math.nan})
    new = {**old, "clip": math.nan, "betas": [0.9, 0.95], "p": "x"}
    new |= {"log_path": str(path), "if_exists": "resume", "wandb_name": "b", "wandb_project": ""}
    RunLog.open(path, new, "demo").close()
    assert read_config(path)["if_exists"] == "raise"


def test_raise_refuses_a_run_and_takes_an_empty_folder(tmp_path):
    (tmp_path / "run").mkdir()
    path = fill(tmp_path / "run", 1, if_exists="raise")
    with pytest.raises(ConfigError, match="already holds a run"):
        RunLog.open(path, CONFIG, "demo", if_exists="raise")
    with pytest.raises(ConfigError, match="resume, overwrite, raise, got 'ask'"):
        RunLog.open(path, CONFIG, "demo", if_exists="ask")  # type: ignore[arg-type]


def test_overwrite_starts_anew_and_leaves_nothing_behind(tmp_path):
    path = fill(tmp_path / "run", 3)
    (path / "results_path.txt").write_text("old")
    fill(path, 1, {**CONFIG, "seed": 9}, if_exists="overwrite")
    assert steps(path) == [0]
    assert read_config(path)["seed"] == 9
    assert not (path / "results_path.txt").exists()
    assert [item.name for item in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("if_exists", ["resume", "overwrite", "raise"])
def test_a_folder_of_something_else_is_never_touched(tmp_path, if_exists):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match="not a run's"):
        RunLog.open(model, CONFIG, "demo", if_exists=if_exists)
    assert [item.name for item in model.iterdir()] == ["config.json"]


def test_overwrite_never_deletes_the_working_folder(tmp_path, monkeypatch):
    path = fill(tmp_path / "run", 1)
    (path / "below").mkdir()
    monkeypatch.chdir(path / "below")
    with pytest.raises(ConfigError, match=r"not deleted: it contains"):
        RunLog.open(path, CONFIG, "demo", if_exists="overwrite")
    assert steps(path) == [0]


def test_opening_again_in_the_same_process_closes_the_older_writer(tmp_path):
    first = RunLog.open(tmp_path / "run", CONFIG, "demo")
    first.log(0, {})
    with RunLog.open(tmp_path / "run", CONFIG, "demo") as second:
        second.log(1, {})
        with pytest.raises(CookbookError, match="closed"):
            first.log(1, {})
    assert steps(second.path) == [0, 1]


WRITER = """
import sys
from cookbook.runlog import RunLog
log = RunLog.open(sys.argv[1], {"seed": 0}, "demo")
step = 0
while True:
    log.log(step, {"text": "x" * 5000})
    log.save_checkpoint(f"{step:06d}", step, "tinker://x", pad="y" * 3000)
    step += 1
    print(step, flush=True)
"""


def test_two_processes_never_mix_and_a_killed_one_can_be_resumed(tmp_path):
    path = tmp_path / "run"
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        while int(child.stdout.readline()) < 20:
            pass
        for if_exists in ("resume", "overwrite"):
            with pytest.raises(ConfigError, match="another process"):
                RunLog.open(path, {"seed": 0}, "demo", if_exists=if_exists)
    finally:
        child.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
        child.communicate(timeout=30)
    with RunLog.open(path, {"seed": 0}, "demo") as log:
        last = log.last_checkpoint()
        assert last is not None
        log.rewind(last["step"])
        log.log(last["step"], {"text": "again"})
    assert steps(path) == list(range(last["step"] + 1))


# --- torn files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", ['{"step": 2, "lo', "\x00\x00\x00", '{"step": 2, "a": "é'])
def test_a_torn_last_line_is_ignored_and_repaired_on_resume(tmp_path, torn):
    path = fill(tmp_path / "run", 2)
    for file in ("metrics.jsonl", "checkpoints.jsonl"):
        with (path / file).open("ab") as stream:
            stream.write(torn.encode()[:-1] if torn.endswith("é") else torn.encode())
    assert steps(path) == [0, 1]
    assert len(read_checkpoints(path)) == 2
    with RunLog.open(path, CONFIG, "demo") as log:
        log.log(2, {"fine": 1})
        log.save_checkpoint("000003", 3, STATE)
    assert steps(path) == [0, 1, 2]
    assert read_checkpoints(path)[-1]["name"] == "000003"


def test_a_broken_line_in_the_middle_names_file_and_line(tmp_path):
    path = fill(tmp_path / "run", 3)
    lines = (path / "metrics.jsonl").read_text().splitlines()
    (path / "metrics.jsonl").write_text("\n".join([lines[0], "[1, 2]", lines[2]]) + "\n")
    with pytest.raises(
        DataError, match=r"metrics.jsonl line 2: expected one JSON object.*\[1, 2\]"
    ):
        read_metrics(path)


def test_a_file_without_final_newline_keeps_its_last_line(tmp_path):
    path = fill(tmp_path / "run", 2)
    text = (path / "metrics.jsonl").read_text()
    (path / "metrics.jsonl").write_text(text.rstrip("\n"))
    with RunLog.open(path, CONFIG, "demo") as log:
        log.log(2, {})
    assert steps(path) == [0, 1, 2]


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 400), text=st.text(max_size=20), value=st.floats())
def test_cutting_a_log_anywhere_loses_at_most_the_cut_line(cut, text, value):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.jsonl"
        whole = [{"step": step, "text": text, "value": value} for step in range(4)]
        lines.rewrite(path, whole)
        content = path.read_bytes()[:cut]
        path.write_bytes(content)
        found = lines.read(path)
        assert json.dumps(found) == json.dumps(lines.decode(lines.encode(whole[: len(found)])))
        assert len(found) >= content.count(b"\n")
        lines.repair(path)
        with lines.open_for_append(path) as file:
            lines.append(file, {"step": 9})
        assert [record["step"] for record in lines.read(path)][-1] == 9
        assert len(lines.read(path)) == len(found) + 1


def test_missing_config_is_a_clear_error(tmp_path):
    with pytest.raises(DataError, match="Give the log path of a training run"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(DataError, match="expected a JSON object, got list"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="expected a JSON object, but"):
        read_config(tmp_path)


# --- Weights & Biases ---------------------------------------------------------------------------


def test_wandb_missing_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"pip install 'tinker-cookbook-notebooks\[wandb\]'"):
        RunLog.open(tmp_path / "run", CONFIG, "demo", wandb_project="p")
    fill(tmp_path / "run", 1)


def test_the_environment_names_a_project_for_runs_that_name_none(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("COOKBOOK_WANDB_PROJECT", "p")
    with pytest.raises(ConfigError, match="wandb package is not installed"):
        RunLog.open(tmp_path / "run", CONFIG, "demo")


def test_wandb_is_not_imported_unless_asked_for(tmp_path):
    script = (
        "import sys; from cookbook.runlog import RunLog\n"
        f"RunLog.open({str(tmp_path / 'run')!r}, {{}}, 'demo', wandb_project='').close()\n"
        "assert 'wandb' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


WANDB_RUN = """
import sys
from cookbook.runlog import RunLog
path, first = sys.argv[1], int(sys.argv[2])
with RunLog.open(path, {"seed": 0}, "demo", wandb_project="p", wandb_name="n") as log:
    log.rewind(first)
    for step in range(first, first + 3):
        log.log(step, {"train_mean_nll": 3.0 - step, "gap": None, "bad": float("nan")})
"""


def run_wandb_script(tmp_path, first, mode):
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "NETRC"))
    }
    environment |= {"WANDB_MODE": mode, "WANDB_SILENT": "true", "HOME": str(tmp_path)}
    environment |= {"WANDB_DATA_DIR": str(tmp_path), "WANDB_CONFIG_DIR": str(tmp_path)}
    command = [sys.executable, "-c", WANDB_RUN, str(tmp_path / "run"), str(first)]
    return subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.slow
def test_wandb_offline_mirrors_the_run_and_resumes_the_same_id(tmp_path):
    pytest.importorskip("wandb")
    for first in (0, 2):
        done = run_wandb_script(tmp_path, first, "offline")
        assert done.returncode == 0, done.stderr
    run_id = read_facts(tmp_path / "run")["wandb_run_id"]
    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert [file.name for file in files] == [f"run-{run_id}.wandb"] * 2
    assert b"train_mean_nll" in files[0].read_bytes()
    assert steps(tmp_path / "run") == [0, 1, 2, 3, 4]


def test_wandb_without_a_key_is_an_error_not_a_question(tmp_path):
    pytest.importorskip("wandb")
    done = run_wandb_script(tmp_path, 0, "online")
    assert done.returncode != 0
    assert "knows no key on this machine" in done.stderr
