"""These notebooks are bad on purpose: no collector may run them."""

collect_ignore_glob = ["*.ipynb", "build.py"]
