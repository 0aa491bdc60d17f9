"""What the notebooks themselves need: the parameter guard and the live display.

The tools that execute, stamp and check notebook files are the modules beside this one; they are not
imported here, so that a notebook's first cell stays quick.
"""

from cookbook.notebooks.guard import Mark, mark
from cookbook.notebooks.live import Live

__all__ = ["Live", "Mark", "mark"]
