"""Where the package keeps what it downloads, converts and logs."""

import os
from pathlib import Path

import platformdirs


def cookbook_home() -> Path:
    """Return the cache folder: ``$COOKBOOK_HOME``, else one in the user's own cache.

    The folder need not exist yet. Below it: ``models/<name>/`` (base models as safetensors
    folders), ``engine/`` (checkpoints of the embedded engine) and ``logs/``.
    """
    chosen = os.environ.get("COOKBOOK_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return platformdirs.user_cache_path("tinker-cookbook-notebooks", appauthor=False)
