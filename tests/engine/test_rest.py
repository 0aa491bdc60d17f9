"""Runs, checkpoints, downloads and sessions, through RestClient and the `tinker` command."""

import io
import json
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import peft
import pytest
import tinker
import torch
from click.testing import CliRunner
from tinker import types
from tinker.cli.__main__ import main_cli
from transformers import AutoModelForCausalLM

from cookbook.engine.errors import NotFoundError
from cookbook.engine.file_urls import FileUrls
from cookbook.engine.sessions import SILENT_S, Sessions
from cookbook.engine.store import CheckpointRef, Store
from tests.engine.older_sdk_lacks import OLDER
from tests.engine.processes import EngineProcess, checkpoint_folder, start_engine
from tests.engine.sdk import assert_identical, saved, step

ROW = [5, 6, 7, 8, 9]


@pytest.fixture(scope="module")
def own(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An engine of this file's own, so that lists hold what its tests made."""
    engine = start_engine(tiny_model, tmp_path_factory.mktemp("rest"), "--embedded")
    yield engine
    engine.end()


@pytest.fixture(scope="module")
def rest(own: EngineProcess) -> tinker.RestClient:
    return tinker.RestClient(base_url=own.base_url, api_key=own.api_key)


@pytest.fixture(scope="module")
def service(own: EngineProcess) -> tinker.ServiceClient:
    return tinker.ServiceClient(
        base_url=own.base_url,
        api_key=own.api_key,
        user_metadata={"course": "one"},
        **({} if OLDER else {"display_name": "Tuesday morning"}),
    )


@pytest.fixture
def run(service: tinker.ServiceClient, tiny_model: Path) -> tinker.TrainingClient:
    client = service.create_lora_training_client(
        str(tiny_model), rank=2, seed=0, user_metadata={"note": "mine"}
    ).result()
    step(client, ROW)
    return client


# Runs.


def test_a_run_is_listed_with_its_last_checkpoints(rest, run, tiny_model):
    begun = datetime.now(UTC)
    run.save_state("one").result()
    run.save_state("two").result()
    run.save_weights_for_sampler("s").result()
    told = rest.get_training_run(run.model_id).result()
    assert told.training_run_id == run.model_id
    assert (told.base_model, told.is_lora, told.lora_rank) == (str(tiny_model), True, 2)
    assert told.user_metadata == {"note": "mine"}
    assert told.last_checkpoint.checkpoint_id == "weights/two"
    assert told.last_sampler_checkpoint.tinker_path.endswith("/sampler_weights/s")
    assert begun - timedelta(seconds=5) < told.last_request_time < datetime.now(UTC)
    assert rest.get_training_run_by_tinker_path(told.last_checkpoint.tinker_path).result() == told
    assert rest.list_training_runs(limit=1).result().training_runs[0] == told


def test_pages_of_runs_cover_all_once(rest, service, tiny_model):
    for _ in range(3):
        service.create_lora_training_client(str(tiny_model), rank=1).result()
    total = rest.list_training_runs().result().cursor.total_count
    seen = []
    for offset in range(0, total, 2):
        page = rest.list_training_runs(limit=2, offset=offset).result()
        assert page.cursor.total_count == total
        seen += [entry.training_run_id for entry in page.training_runs]
    assert len(seen) == len(set(seen)) == total >= 3


@pytest.mark.parametrize("page", [{"limit": 0}, {"offset": -1}, {"limit": 100_000}])
def test_an_impossible_page_is_refused(rest, page):
    with pytest.raises(tinker.BadRequestError, match="limit is"):
        rest.list_training_runs(**page).result()


def test_an_unknown_run_is_refused(rest):
    with pytest.raises(tinker.NotFoundError, match="no training run s0:train:0"):
        rest.get_training_run("s0:train:0").result()


# Checkpoints.


def test_checkpoints_are_listed_with_size_and_end(rest, run):
    path = run.save_state("kept", ttl_seconds=7200).result().path
    run.save_weights_for_sampler("s").result()
    newest, older = rest.list_checkpoints(run.model_id).result().checkpoints
    assert (newest.checkpoint_type, older.checkpoint_type) == ("sampler", "training")
    assert (older.checkpoint_id, older.tinker_path) == ("weights/kept", path)
    assert older.size_bytes > newest.size_bytes > 1000
    left = older.expires_at - datetime.now(UTC)
    assert timedelta(minutes=110) < left <= timedelta(hours=2)
    page = rest.list_user_checkpoints(limit=2).result()
    assert [entry.tinker_path for entry in page.checkpoints] == [newest.tinker_path, path]
    assert page.cursor.total_count >= 2


def test_a_checkpoint_is_listed_with_what_its_user_noted(rest, run):
    run.save_state("kept", user_metadata={"epoch": "3"}).result()
    (listed,) = rest.list_checkpoints(run.model_id).result().checkpoints
    assert listed.user_metadata == {"epoch": "3"}


def test_a_deleted_checkpoint_is_gone(rest, service, run):
    path = run.save_state("gone").result().path
    rest.delete_checkpoint(run.model_id, "weights/gone").result()
    assert rest.list_checkpoints(run.model_id).result().checkpoints == []
    with pytest.raises(tinker.NotFoundError, match="no checkpoint"):
        rest.delete_checkpoint_from_tinker_path(path).result()
    with pytest.raises(tinker.NotFoundError, match="no checkpoint"):
        service.create_training_client_from_state(path).result()
    assert run.save_state("gone").result().path == path  # the name is free again


def test_publishing_is_a_mark_that_may_be_set_twice(rest, run):
    path = run.save_state("a").result().path

    def public() -> bool:
        return rest.list_checkpoints(run.model_id).result().checkpoints[0].public

    assert not public()
    for _ in range(2):
        rest.publish_checkpoint_from_tinker_path(path).result()
        assert public()
    for _ in range(2):
        rest.unpublish_checkpoint_from_tinker_path(path).result()
        assert not public()


def test_a_time_to_live_is_set_cleared_and_checked(rest, run):
    path = run.save_state("a").result().path

    def expires() -> datetime | None:
        return rest.list_checkpoints(run.model_id).result().checkpoints[0].expires_at

    assert expires() is None
    rest.set_checkpoint_ttl_from_tinker_path(path, 3600).result()
    end = expires()
    assert end is not None
    assert timedelta(minutes=50) < end - datetime.now(UTC) <= timedelta(hours=1)
    with pytest.raises(tinker.BadRequestError, match="ttl_seconds is 5"):
        rest.set_checkpoint_ttl_from_tinker_path(path, 5).result()
    rest.set_checkpoint_ttl_from_tinker_path(path, None).result()
    assert expires() is None


def test_a_checkpoint_whose_time_is_over_is_gone(rest, service, run, own):
    path = run.save_state("a", ttl_seconds=3600).result().path
    manifest = checkpoint_folder(own.data_dir, path) / "manifest.json"
    known = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**known, "expires": time.time() - 1}))
    assert rest.list_checkpoints(run.model_id).result().checkpoints == []
    with pytest.raises(tinker.NotFoundError, match="no checkpoint"):
        service.create_training_client_from_state(path).result()


def test_a_copy_keeps_weights_and_kind(rest, service, run, own, monkeypatch):
    data = own.log.parent / "data"
    for path in (
        run.save_state("a").result().path,
        run.save_weights_for_sampler("a").result().path,
    ):
        copied = rest.copy_weights(path, "archive", ttl_seconds=3600).result()
        assert copied != path
        assert copied.split("/")[-2:] == path.split("/")[-2:]
        assert_identical(saved(copied, data), saved(path, data))
        rest.delete_checkpoint_from_tinker_path(path).result()
        assert saved(copied, data)
    monkeypatch.setenv("TINKER_PROJECT_ID", "archive")
    state = run.save_state("b").result().path
    assert service.copy_weights(state).result() != state
    again = service.create_training_client_from_state_with_optimizer(
        rest.copy_weights(state, "archive").result()
    ).result()
    assert step(again, ROW) == step(run, ROW)


# Downloads.


def test_an_export_is_downloaded_without_a_key_and_loads_in_peft(
    rest, run, own, tiny_model, tmp_path
):
    path = run.save_weights_external("download", ttl_seconds=3600).result().path
    assert "/external_weights/" in path
    told = rest.get_external_weights_urls(path).result()
    assert set(told.urls) == {"adapter_config.json", "adapter_model.safetensors"}
    assert told.expires > datetime.now(UTC) + timedelta(minutes=30)
    for name, url in told.urls.items():
        with urllib.request.urlopen(url, timeout=30) as answer:
            (tmp_path / name).write_bytes(answer.read())
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, str(tmp_path))
    loaded = {k: v for k, v in peft.get_peft_model_state_dict(model).items() if "lora_" in k}
    assert_identical(
        {name: value.numpy() for name, value in loaded.items()},
        saved(path, own.log.parent / "data"),
    )


@pytest.mark.parametrize("spoil", ["signature", "name", "expiry"])
def test_a_link_that_was_changed_does_not_work(rest, run, spoil):
    path = run.save_weights_external("download").result().path
    url = rest.get_external_weights_urls(path).result().urls["adapter_config.json"]
    head, signature, expires, rest_of_path = url.split("/", 6)[:4], *url.split("/", 6)[4:]
    changed = {
        "signature": [*head, "0" * len(signature), expires, rest_of_path],
        "name": [*head, signature, expires, rest_of_path.replace("config.json", "x")],
        "expiry": [*head, signature, str(int(expires) + 9), rest_of_path],
    }[spoil]
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen("/".join(changed), timeout=30)
    assert refused.value.code == 404
    assert "not (or no longer) valid" in json.loads(refused.value.read())["detail"]


def test_a_link_works_for_a_while(tmp_path, monkeypatch):
    store, ref = Store(tmp_path), CheckpointRef("s1:train:0", "weights", "a")
    store.save(ref, lambda folder: None, {})
    urls = FileUrls(store, "secret")
    url, _ = urls.sign("http://here/", ref, "adapter_config.json")
    rest_of_path = url.removeprefix("http://here/files/")
    assert urls.file(rest_of_path) == store.folder(ref) / "adapter_config.json"
    later = time.time() + 4000
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(NotFoundError, match="no longer"):
        urls.file(rest_of_path)


def test_older_sdks_download_an_archive(run, own):
    path = run.save_weights_for_sampler("a").result().path
    run_id, segment, name = path.removeprefix("tinker://").split("/")
    with own.http() as client:
        answer = client.get(f"training_runs/{run_id}/checkpoints/{segment}/{name}/archive")
    assert answer.status_code == 302
    assert answer.headers["expires"].endswith("GMT")
    with urllib.request.urlopen(answer.headers["location"], timeout=30) as file:
        content = io.BytesIO(file.read())
    with tarfile.open(fileobj=content) as archive:
        names = archive.getnames()
    assert names == ["adapter_config.json", "adapter_model.safetensors"]


# Sessions.


def test_a_session_knows_what_was_made_in_it(rest, service, run):
    session_id = run.model_id.split(":")[0]
    sampler = run.save_weights_and_get_sampling_client().result()
    told = rest.get_session(session_id).result()
    assert run.model_id in told.training_run_ids
    assert sampler._sampling_session_id in told.sampler_ids
    assert session_id in rest.list_sessions(limit=1000).result().sessions


def test_a_session_has_the_name_and_notes_of_its_client(rest, run):
    told = rest.get_session(run.model_id.split(":")[0]).result()
    assert (told.user_metadata, told.display_name) == ({"course": "one"}, "Tuesday morning")


@pytest.mark.filterwarnings("ignore::tinker.ExperimentalWarning")
def test_sessions_are_found_by_name_metadata_project_and_status(rest, run, own):
    session_id = run.model_id.split(":")[0]

    def found(**wanted: Any) -> list[str]:
        answer = rest.search_sessions(types.SessionSearchRequest(**wanted)).result()
        return [session.session_id for session in answer.sessions]

    assert found(display_name="morning tuesday") == [session_id]
    assert found(user_metadata={"course": "one"}) == [session_id]
    assert found(user_metadata={"course": "two"}) == []
    assert session_id in found(statuses=[{"type": "active"}])
    rest.assign_session_project(session_id, "thesis").result()
    assert found(project_ids=["thesis"]) == [session_id]
    with tinker.ServiceClient(base_url=own.base_url, api_key=own.api_key) as other:
        other.create_sampling_client(base_model=run.get_info().model_name).result()
    done = found(statuses=[{"type": "client_finished", "reasons": ["success"]}])
    assert len(done) >= 1
    assert session_id not in done
    first = rest.search_sessions(types.SessionSearchRequest(limit=1)).result()
    second = rest.search_sessions(
        types.SessionSearchRequest(limit=1, cursor=first.next_cursor)
    ).result()
    assert first.sessions[0].session_id != second.sessions[0].session_id


def test_a_closed_client_gives_its_runs_back(rest, own, tiny_model):
    with tinker.ServiceClient(base_url=own.base_url, api_key=own.api_key) as client:
        run = client.create_lora_training_client(str(tiny_model), rank=1).result()
        step(run, ROW)
    with own.http() as http:
        deadline = time.monotonic() + 10
        while (answer := http.post("get_info", json={"model_id": run.model_id})).status_code == 200:
            assert time.monotonic() < deadline, "the run is still there"
            time.sleep(0.05)
    assert "closed or silent" in answer.json()["detail"]
    assert rest.get_training_run(run.model_id).result().training_run_id == run.model_id


def test_a_session_is_gone_once_when_it_ended_or_was_silent(monkeypatch):
    sessions = Sessions()
    silent, ended, alive = (sessions.open() for _ in range(3))
    assert sessions.take_gone() == []
    ended.status = {"type": "client_finished"}
    later = time.monotonic() + SILENT_S + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    sessions.hear(alive.session_id)
    assert sessions.take_gone() == [silent.session_id, ended.session_id]
    assert sessions.take_gone() == []


# What a killed engine leaves.


def test_a_checkpoint_whose_overwriting_was_cut_off_comes_back(tmp_path):
    store, ref = Store(tmp_path), CheckpointRef("s1:train:0", "weights", "a")
    store.save(ref, lambda folder: None, {"steps": 1})
    folder = store.folder(ref)
    os.replace(folder, folder.with_name(f".a.{'0' * 32}.old"))  # killed between two renames
    assert Store(tmp_path).load_manifest(ref)["steps"] == 1
    shutil.copytree(folder, folder.with_name(f".a.{'1' * 32}.old"))  # killed after the second
    assert Store(tmp_path).load_manifest(ref)["steps"] == 1
    assert [path.name for path in folder.parent.iterdir()] == ["a"]


# The command line tool.


@pytest.fixture
def tinker_command(own: EngineProcess, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The SDK's command line, in this process: a new one takes seconds to import it."""
    monkeypatch.setenv("TINKER_BASE_URL", own.base_url)
    monkeypatch.setenv("TINKER_API_KEY", own.api_key)

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(
            main_cli, ["--format", "json", *arguments], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout) if done.stdout.strip()[:1] in ("{", "[") else done.stdout

    return run


def test_the_command_line_lists_and_describes(tinker_command, run):
    path = run.save_state("from-the-shell").result().path
    assert run.model_id in json.dumps(tinker_command("run", "list"))
    assert run.model_id in json.dumps(tinker_command("run", "info", run.model_id))
    assert path in json.dumps(tinker_command("checkpoint", "list", "--run-id", run.model_id))
    assert path in json.dumps(tinker_command("checkpoint", "info", path))


def test_the_command_line_marks_checkpoints(tinker_command, rest, run):
    path = run.save_state("from-the-shell").result().path

    def told() -> Any:
        return rest.list_checkpoints(run.model_id).result().checkpoints[0]

    tinker_command("checkpoint", "publish", path)
    assert told().public
    tinker_command("checkpoint", "unpublish", path)
    assert not told().public
    tinker_command("checkpoint", "set-ttl", path, "--ttl", "7200")
    assert told().expires_at > datetime.now(UTC) + timedelta(minutes=110)
    tinker_command("checkpoint", "set-ttl", path, "--remove")
    assert told().expires_at is None


def test_the_command_line_downloads_and_deletes(tinker_command, run, tmp_path):
    path = run.save_state("from-the-shell").result().path
    tinker_command("checkpoint", "download", path, "--output", str(tmp_path))
    (config,) = tmp_path.rglob("adapter_config.json")
    assert json.loads(config.read_text())["r"] == 2
    assert (config.parent / "adapter_model.safetensors").stat().st_size > 1000
    tinker_command("checkpoint", "delete", path, "--yes")
    assert path not in json.dumps(tinker_command("checkpoint", "list"))
