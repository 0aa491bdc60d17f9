"""The embedded engine: a server on this machine that the unmodified ``tinker`` SDK trains against.

Started as its own process, ``python -m cookbook.engine``; no other part of the package imports it.
"""

import os

# GNU OpenMP reads this when torch is imported. By default its threads spin for long where they wait
# for each other, and while another process has one of the cores they spin in vain: a training step
# beside one busy process took twenty times as long as alone, with this twice.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
