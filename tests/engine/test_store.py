"""Checkpoints on disk: complete or absent, and gone when they expire."""

import json
from pathlib import Path

import pytest

from cookbook.engine import store as storing
from cookbook.engine.errors import NotFoundError, UserError
from cookbook.engine.store import CheckpointRef, Store, check_name, check_ttl, parse_path

REF = CheckpointRef("s1:train:0", "weights", "a")


def write(text: str):
    return lambda folder: (folder / "file").write_text(text)


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_checkpoint_comes_back(tmp_path):
    path = Store(tmp_path).save(REF, write("one"), {"steps": 3})
    assert path == "tinker://s1:train:0/weights/a"
    again = Store(tmp_path)
    assert again.load_manifest(parse_path(path))["steps"] == 3
    assert (again.folder(REF) / "file").read_text() == "one"


def test_a_failed_save_leaves_what_was_there(tmp_path):
    store = Store(tmp_path)
    store.save(REF, write("old"), {})
    before = files(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise OSError("disk full")

    for ref in (REF, CheckpointRef(REF.run_id, REF.segment, "b")):
        with pytest.raises(OSError, match="disk full"):
            store.save(ref, fail, {}, overwrite=True)
    assert files(tmp_path) == before
    assert (store.folder(REF) / "file").read_text() == "old"


def test_a_name_is_taken_once_unless_overwritten(tmp_path):
    store = Store(tmp_path)
    store.save(REF, write("old"), {})
    with pytest.raises(UserError, match=r"weights/a exists already.*overwrite=True"):
        store.save(REF, write("new"), {})
    assert (store.folder(REF) / "file").read_text() == "old"
    store.save(REF, write("new"), {}, overwrite=True)
    assert (store.folder(REF) / "file").read_text() == "new"
    assert [path.name for path in store.folder(REF).parent.iterdir()] == ["a"]


def test_a_missing_checkpoint_names_those_that_exist(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(NotFoundError, match="it has none of this kind"):
        store.load_manifest(REF)
    for name in ("b", "c"):
        store.save(CheckpointRef(REF.run_id, REF.segment, name), write(""), {})
    with pytest.raises(NotFoundError, match=r"no checkpoint tinker://.*/a; this run has b, c"):
        store.load_manifest(REF)


def test_an_expired_checkpoint_is_gone_and_removed_at_the_next_start(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.save(REF, write(""), {}, ttl_seconds=3600)
    lasting = CheckpointRef(REF.run_id, REF.segment, "lasting")
    store.save(lasting, write(""), {})
    expires = json.loads((store.folder(REF) / "manifest.json").read_text())["expires"]
    monkeypatch.setattr(storing.time, "time", lambda: expires - 1)
    assert Store(tmp_path).load_manifest(REF)
    monkeypatch.setattr(storing.time, "time", lambda: expires + 1)
    with pytest.raises(NotFoundError, match="no checkpoint"):
        store.load_manifest(REF)
    assert Store(tmp_path).load_manifest(lasting)
    assert not store.folder(REF).exists()


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "tinker://",
        "tinker://s1:train:0/weights",
        "tinker://s1:train:0/weights/a/b",
        "tinker://s1:train:0/weights/..",
        "tinker://s1:train:0/weights/.hidden",
        "tinker://s1:train:0/weights/a\\b",
        "tinker://s1:train:0/weights/a\n",
        "tinker://../weights/a",
        "tinker://..:train:0/weights/a",
        "tinker://s1:train:0/other_weights/a",
        "tinker://s1:train:0/../a",
        "/etc/passwd",
        "https://s1:train:0/weights/a",
    ],
)
def test_other_paths_are_refused(path):
    with pytest.raises(UserError, match=r"the form is tinker://<training run id>/<segment>/<name>"):
        parse_path(path)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", ".a", "-a", "a b", "a" * 129]
)
def test_other_names_are_refused(name):
    with pytest.raises(UserError, match="allowed are letters, digits"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "step-3", "0001", "A.b_c-9", "a" * 128])
def test_plain_names_are_taken(name):
    assert check_name(name) == name
    assert parse_path(f"tinker://s1:train:0/weights/{name}").name == name


@pytest.mark.parametrize("seconds", [0, -1, 3599, 10 * 365 * 24 * 3600 + 1])
def test_a_time_to_live_has_bounds(seconds):
    with pytest.raises(UserError, match=f"ttl_seconds is {seconds}; allowed are 3600 to"):
        check_ttl(seconds)


@pytest.mark.parametrize("seconds", [None, 3600, 10 * 365 * 24 * 3600])
def test_a_time_to_live_within_them_is_taken(seconds):
    check_ttl(seconds)
