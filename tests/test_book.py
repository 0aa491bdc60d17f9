"""The web site: its checker sees what is broken, it holds every notebook, and it builds."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from cookbook.notebooks.path import learning_path

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "docs" / "book"
EXTRA = "the web site needs its extra: pip install -e '.[book]' -c constraints.txt"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"book_{name}", BOOK / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def conf() -> ModuleType:
    pytest.importorskip("latex2mathml", reason=EXTRA)
    pytest.importorskip("docutils", reason=EXTRA)
    return load("conf")


def site(folder: Path, **pages: str) -> Path:
    for name, body in pages.items():
        (folder / f"{name}.html").write_text(f"<html><body>{body}</body></html>")
    return folder


def test_links_to_pages_and_places_that_are_there_are_no_faults(tmp_path):
    one = '<h1 id="top">1</h1> <a href="two.html#below">2</a> <a href="#top">up</a>'
    two = (
        '<h2 id="below">2</h2> <a href="https://example.org/#x">elsewhere</a> <img src="one.html">'
    )
    faults, weights = load("check").check(site(tmp_path, one=one, two=two))
    assert faults == []
    sizes = {name: (tmp_path / name).stat().st_size for name in weights}
    assert weights == {"one.html": sizes["one.html"], "two.html": sum(sizes.values())}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('<a href="gone.html">x</a>', "a link to gone.html, which is not in the site"),
        ('<img src="gone.png">', "a link to gone.png"),
        ('<a href="#gone">x</a>', "a link to #gone, which one.html does not have"),
        ('<a href="one.html#gone">x</a>', "a link to #gone"),
        ("x" * 2_000_001, "bytes to load, allowed 2,000,000"),
    ],
)
def test_what_is_broken_is_told(body, told, tmp_path):
    faults, _ = load("check").check(site(tmp_path, one=body))
    assert len(faults) == 1
    assert told in faults[0]


def test_a_folder_without_pages_is_a_fault(tmp_path):
    assert load("check").check(tmp_path)[0] == [f"no pages in {tmp_path}"]


def test_every_notebook_is_in_the_table_of_contents(conf):
    shown = conf.contents()
    names = [path.stem for path in (ROOT / "notebooks").glob("*.ipynb")]
    assert names
    assert all(f"{name} <../../notebooks/{name}>" in shown for name in names)
    assert [shown.index(f"\n{stop.name} <") for stop in learning_path()] == sorted(
        shown.index(f"\n{stop.name} <") for stop in learning_path()
    )


def test_pictures_keep_their_alternative_text(conf):
    output = {"metadata": {"image/png": {"alt": "A line falls."}}, "data": {"image/png": "x"}}
    cells = [{"metadata": {}, "outputs": [output]}, {"metadata": {}}]
    source = [json.dumps({"cells": cells})]
    env = SimpleNamespace(doc2path=lambda name: Path(f"{name}.ipynb"))
    conf.prepare(SimpleNamespace(env=env), "notebooks/any", source)
    first, second = json.loads(source[0])["cells"]
    assert first["metadata"]["mystnb"]["image"]["alt"] == "A line falls."
    assert second["metadata"] == {}


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_every_link_works(tmp_path):
    for package in ("sphinx", "myst_nb", "furo", "latex2mathml"):
        pytest.importorskip(package, reason=EXTRA)
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs/book"]
    folders = ["-d", str(tmp_path / "trees"), ".", str(tmp_path / "site")]
    done = subprocess.run([*build, *folders], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    faults, weights = load("check").check(tmp_path / "site")
    assert faults == []
    assert {f"notebooks/{stop.name}.html" for stop in learning_path()} <= {*weights}
    page = (tmp_path / "site" / "notebooks" / "sl_loop.html").read_text()
    assert "<math" in page
    assert "cdn.jsdelivr.net" not in page, "a page must not need the network"
    assert (tmp_path / "site" / "searchindex.js").stat().st_size > 10_000
