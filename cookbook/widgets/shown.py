"""Showing a widget whose stored form is static, or that static form alone."""

from typing import Any

from cookbook.frontend import in_notebook


def show_static(markup: str, text: str) -> None:
    """Show HTML in a notebook, print the text elsewhere."""
    if not in_notebook():
        print(text)
        return
    from IPython.display import display

    display({"text/html": markup, "text/plain": text}, raw=True)


def show_widget(widget: Any, markup: str, text: str) -> None:
    """Show an ipywidget; in a file that is saved with it stand the static HTML and the text."""
    from IPython.display import display

    bundle = widget._repr_mimebundle_()
    display({**bundle, "text/html": markup, "text/plain": text}, raw=True)
