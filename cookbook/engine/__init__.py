"""The embedded engine: a server on this machine that the unmodified ``tinker`` SDK trains against.

Started as its own process, ``python -m cookbook.engine``; no other part of the package imports it.
"""

import os

# GNU OpenMP reads this when torch is imported. By default its threads spin for long where they wait
# for each other; while another process has one of the cores they spin in vain, and a training step
# took twenty times as long as alone. With this it takes four times as long, and alone no longer
# than before. (At 1000 it is twice, but then everything is a quarter slower on a quiet machine.)
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# oneDNN keeps a compiled program for each shape of a product, and ideep, which calls it, a second
# list of them: a thousand each by default, a quarter of a megabyte apiece, and packed batches have
# new shapes at every step. One step's repeated shapes fit into 64 (with 16 it is a third slower).
for variable in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
    os.environ.setdefault(variable, "64")
