"""One notebook, many settings: a grid of runs, each in its own folder, resumable, compared.

The folder of a sweep holds `sweep.json` (which runs there are and how they ended), a folder per run
(its log, its executed notebook, its results) and the comparison of all runs.
"""

from cookbook.sweep.grid import grid_points, read_grid, run_name
from cookbook.sweep.runner import run_sweep
from cookbook.sweep.state import Run, Sweep

__all__ = ["Run", "Sweep", "grid_points", "read_grid", "run_name", "run_sweep"]
