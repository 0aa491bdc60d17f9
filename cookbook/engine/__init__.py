"""The embedded engine: a server on this machine that the unmodified ``tinker`` SDK trains against.

Started as its own process, ``python -m cookbook.engine``; no other part of the package imports it.
"""
