from pathlib import Path

from cookbook.home import cookbook_home


def test_the_variable_names_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("COOKBOOK_HOME", str(tmp_path / "here"))
    assert cookbook_home() == tmp_path / "here"
    assert not cookbook_home().exists()


def test_a_tilde_and_a_relative_path_become_absolute(monkeypatch, tmp_path):
    monkeypatch.setenv("COOKBOOK_HOME", "~/mine")
    assert cookbook_home() == Path.home() / "mine"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COOKBOOK_HOME", "relative")
    assert cookbook_home() == tmp_path / "relative"


def test_the_default_is_in_the_users_cache(monkeypatch):
    monkeypatch.setenv("COOKBOOK_HOME", "")
    assert cookbook_home().name == "tinker-cookbook-notebooks"
    assert Path.home() in cookbook_home().parents
