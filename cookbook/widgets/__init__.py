"""What answers in a page of JupyterLab, each with a static form of the same wherever nobody can.

Progress and the stop button of a run come with `cookbook.notebooks.Live`.
"""

from cookbook.widgets.browser import browse_rollouts
from cookbook.widgets.chat import chat

__all__ = ["browse_rollouts", "chat"]
