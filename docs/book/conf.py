"""The web site of the notebooks: `make book`.

Its sources are the repository itself, so that a relative link means the same in JupyterLab, on a
code host and here. Nothing is executed: the outputs are those that `make notebooks` stored.
"""

import json
from itertools import groupby
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

from cookbook.notebooks.path import learning_path

project = html_title = "Learn LLM post-training by running it"
author = "the authors of this repository"
language = "en"

extensions = ["myst_nb"]
root_doc = "docs/book/index"
include_patterns = [
    "README.md",
    "docs/*.md",
    "docs/book/index.md",
    "notebooks/*.md",
    "notebooks/*.ipynb",
    "benchmarks/README.md",
    "results/reference/README.md",
]
exclude_patterns = [".*", "**/.*", "build"]

nb_execution_mode = "off"
nb_render_markdown_format = "myst"  # else links in outputs are not resolved
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
highlight_language = "none"  # a fence without a language is a drawing or a terminal

html_theme = "furo"
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
html_extra_path = ["index.html"]


def contents() -> str:
    """Return the sections of the learning path, and the same as tables of contents for the side."""
    parts = []
    for section, group in groupby(learning_path(), key=lambda stop: stop.section):
        stops = list(group)
        lines = [f"- [{s.name}](../../notebooks/{s.name}.ipynb): {s.you_learn}" for s in stops]
        entries = (f"{stop.name} <../../notebooks/{stop.name}>" for stop in stops)
        tree = ["```{toctree}", ":hidden:", f":caption: {section}", "", *entries, "```"]
        parts.append("\n".join([f"## {section}", "", *lines, "", *tree]))
    return "\n\n".join(parts)


def prepare(app: Any, docname: str, source: list[str]) -> None:
    """Fill in the contents; tell each picture's alternative text to its renderer."""
    if docname == root_doc:
        source[0] = source[0].replace("<!-- learning path -->", contents())
    if app.env.doc2path(docname).suffix != ".ipynb":
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if alt := output.get("metadata", {}).get("image/png", {}).get("alt"):
                cell["metadata"]["mystnb"] = {"image": {"alt": alt}}
    source[0] = json.dumps(notebook)


def write_formula(writer: Any, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers draw themselves: no script, no network."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    writer.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Connect the functions of this file to Sphinx."""
    app.connect("source-read", prepare)
    formula = (write_formula, None)
    app.add_html_math_renderer("mathml", inline_renderers=formula, block_renderers=formula)
