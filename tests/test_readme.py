"""The first screen of the README tells what this is, how to start, and what comes of it."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from cookbook.analysis import finding, load_run, reference_runs
from cookbook.runlog import read_metrics

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
# The column that code hosts give a README in a window 1280 pixels wide, and their sizes of text.
STYLE = """body { width: 830px; margin: 24px auto; font: 16px/1.5 Helvetica, Arial, sans-serif }
h1 { font-size: 32px; margin: 0 0 16px; padding-bottom: 10px } p, pre, table { margin: 0 0 16px }
pre { padding: 16px; font: 13.6px/1.45 monospace } img { max-width: 100% }
table { border-collapse: collapse } th, td { padding: 6px 13px; border: 1px solid #ccc }"""
MEASURE = """const bottom = name => document.querySelector(name).getBoundingClientRect().bottom;
document.body.dataset.ends = ['h1', 'p', 'pre', 'img', 'thead', 'tbody tr']
  .map(name => `${name} ${Math.round(bottom(name))}`).join(', ')"""


def cover():
    spec = importlib.util.spec_from_file_location("cover", ROOT / "docs" / "cover.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_order_of_the_first_screen():
    text = README.read_text()
    told = re.match(
        r"# .+\n\n(?P<sentence>.+)\n\n```\n(?P<commands>[^`]+)```\n\n"
        r"!\[(?P<alt>.+)\]\((?P<picture>.+)\)\n\n\| notebook \|",
        text,
    )
    assert told
    assert [line.split()[:2] for line in told["commands"].splitlines()] == [
        ["make", "demo"],
        ["make", "lab"],
    ]
    runs = reference_runs()
    for name in ("sl_basic", "rl_loop"):
        numbers = re.findall(r"\d+\.\d+", finding(load_run(runs[name]).headline()))
        assert all(number in told["alt"] for number in numbers)
    assert (ROOT / told["picture"]).is_file()


def test_the_picture_is_of_the_committed_logs():
    drawn = cover()
    figure = drawn.cover_figure()
    left, right = figure.axes
    runs = reference_runs()
    for name, metric, axes in (
        ("sl_basic", "train_mean_nll", left),
        ("sl_basic", "test/nll", left),
        ("rl_loop", "env/all/reward/total", right),
    ):
        logged = [line[metric] for line in read_metrics(runs[name]) if metric in line]
        assert logged in [list(line.get_ydata()) for line in axes.lines]
    width, height = Image.open(drawn.PICTURE).size
    assert (width, height) == figure.canvas.get_width_height()
    assert 830 / width * height < 250, "too tall for the first screen"


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium to lay the page out")
def test_the_table_begins_on_the_first_screen(tmp_path):
    markdown_it = pytest.importorskip("markdown_it")
    body = markdown_it.MarkdownIt("commonmark").enable("table").render(README.read_text())
    page = tmp_path / "readme.html"
    base = f'<base href="{ROOT.as_uri()}/">'
    script = f"<script>onload = () => {{ {MEASURE} }}</script>"
    page.write_text(
        f"<!doctype html><meta charset=utf-8>{base}<style>{STYLE}</style>{script}{body}"
    )
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    window = ["--window-size=1280,800", f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    told = subprocess.run([*command, *window], capture_output=True, text=True, timeout=120)
    ends = re.search(r'data-ends="([^"]+)"', told.stdout)
    assert ends, told.stderr[-500:]
    bottoms = {name: int(px) for name, px in re.findall(r"([\w ]+?) (\d+)(?:, )?", ends[1])}
    assert list(bottoms.values()) == sorted(bottoms.values())
    assert bottoms["tbody tr"] <= 800, ends[1]
