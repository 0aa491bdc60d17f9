"""A picture or table that is replaced while a cell runs and stays as one static output.

One display handle is updated in place. A saved notebook therefore holds the final state only, as a
PNG or as HTML, with no widget metadata and no trail of fragments. In a page of JupyterLab the run
that is going on is told above it: steps, time left, newest samples, and a button to stop it.
"""

import base64
import re
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from cookbook.frontend import in_notebook, is_live

UPDATE_INTERVAL_S = 0.5


class Live:
    """A display that shows the latest of many states; use it in a ``with`` statement.

    Leaving the block, by an interrupt too, shows the last state given and the caption. Outside a
    notebook nothing is shown but the caption.

    Args:
        alt: what a reader who cannot see the picture is told: what is plotted, its range, what was
            found. Assign ``live.alt`` later when it depends on the run.
        caption: a visible sentence below, starting from what is seen; ``live.caption`` likewise.

    Example:
        with Live(alt="Held-out NLL by step.", caption="The curve falls.") as live:
            for step in range(steps):
                ...
                live.update(lambda: draw_curve(losses))  # a Figure, drawn only when shown
    """

    def __init__(self, alt: str, caption: str) -> None:
        self.alt = alt
        self.caption = caption
        self._latest: Any = None
        self._shown_at = -UPDATE_INTERVAL_S
        self._handle: Any = None
        self._above = ExitStack()

    def __enter__(self) -> Self:
        if is_live():
            from cookbook.widgets.monitor import Monitor

            self._above.enter_context(Monitor())
        return self

    def update(self, content: Any) -> None:
        """Show ``content``, or keep it for later if the last update is under half a second old.

        Args:
            content: a matplotlib Figure, a string of HTML, or a function without arguments that
                returns one of them; a function is called only when its result is shown.
        """
        if self._latest is not content:
            _close(self._latest)
        self._latest = content
        if time.monotonic() - self._shown_at >= UPDATE_INTERVAL_S:
            self._show()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._above.close()
        if self._latest is not None:
            self._show()
            _close(self._latest)
        if not in_notebook():
            print(self.caption)
        elif self._latest is not None:
            from IPython.display import display

            display({"text/markdown": self.caption, "text/plain": self.caption}, raw=True)

    def _show(self) -> None:
        if not in_notebook():
            return
        from IPython.display import display

        content = self._latest() if callable(self._latest) else self._latest
        data, metadata = _bundle(content, self.alt)
        if content is not self._latest:
            _close(content)
        if self._handle is None:
            self._handle = display(data, metadata=metadata, raw=True, display_id=True)
        else:
            self._handle.update(data, metadata=metadata, raw=True)
        self._shown_at = time.monotonic()


def _bundle(content: Any, alt: str) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Return the display data and metadata of a Figure or of a string of HTML."""
    if isinstance(content, str):
        text = re.sub(r"<[^>]+>", " ", content)
        return {"text/html": content, "text/plain": " ".join(text.split())}, {}
    from cookbook.analysis.style import png  # brings matplotlib, so only when a figure is shown

    data = base64.b64encode(png(content)).decode("ascii")
    return {"image/png": data, "text/plain": f"[figure: {alt}]"}, {"image/png": {"alt": alt}}


def _close(content: Any) -> None:
    """Close a Figure, else the inline backend would show it a second time; leave the rest alone."""
    if hasattr(content, "savefig"):
        import matplotlib.pyplot as plt

        plt.close(content)
