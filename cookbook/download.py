"""A trained adapter from the server to this machine, as a PEFT folder.

Owns: which calls of the SDK that takes. Later versions export a state and give a link to each file;
0.24 gives one link to an archive of a checkpoint.
"""

import io
import os
import shutil
import tarfile
import urllib.request
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import tinker

from cookbook.checkpointing import ready
from cookbook.errors import ServiceError

TIMEOUT_S = 600.0
EXPORT_TTL_S = 3600
CONFIG = "adapter_config.json"


def download_adapter(service: Any, state_path: str, folder: str | os.PathLike[str]) -> Path:
    """Write the adapter of a saved state into `folder`, which `peft` can load; return the folder.

    Files of that name there are replaced, each at once; the configuration comes last, so that a
    folder that has it is complete.

    Args:
        service: from `cookbook.service.connect`.
        state_path: `tinker://` path of saved weights, such as `Result.state_path`.
        folder: made when missing.
    Raises:
        ServiceError: the server does not know the path, or offers no download.
    """
    target = Path(folder).expanduser()
    try:
        with warnings.catch_warnings():
            # Its successor, RestClient(), would have to be told the server's address once more.
            warnings.simplefilter("ignore", FutureWarning)
            rest = service.create_rest_client()
        files = _archived if hasattr(rest, "get_checkpoint_archive_url") else _exported
        target.mkdir(parents=True, exist_ok=True)
        for name, content in files(service, rest, state_path):
            _write(target, name, content)
        os.replace(target / f".{CONFIG}", target / CONFIG)
    except (tinker.APIError, tinker.RequestFailedError, OSError, tarfile.TarError) as error:
        raise ServiceError(
            f"The server gave no files of {state_path}: {type(error).__name__}: {error}. Not every "
            "server offers a download, and checkpoints expire; the weights stay usable there."
        ) from error
    return target


def _exported(service: Any, rest: Any, path: str) -> Iterator[tuple[str, IO[bytes]]]:
    """Export the state, which takes a run made from it, and yield its files."""
    run = ready(service.create_training_client_from_state(path))
    name = f"download-{uuid.uuid4().hex[:8]}"
    exported = run.save_weights_external(name, ttl_seconds=EXPORT_TTL_S).result().path
    for name, url in rest.get_external_weights_urls(exported).result().urls.items():
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as content:
            yield name, content


def _archived(service: Any, rest: Any, path: str) -> Iterator[tuple[str, IO[bytes]]]:
    """Fetch the checkpoint's archive and yield the adapter's files in it."""
    url = rest.get_checkpoint_archive_url_from_tinker_path(path).result().url
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        archive = io.BytesIO(answer.read())
    with tarfile.open(fileobj=archive) as members:
        for member in members:
            content = members.extractfile(member)
            if content is not None and PurePosixPath(member.name).name.startswith("adapter_"):
                yield PurePosixPath(member.name).name, content


def _write(folder: Path, name: str, content: IO[bytes]) -> None:
    """Write a file aside and rename it; the configuration stays aside until all are there."""
    if PurePosixPath(name).name != name or name.startswith("."):
        raise OSError(f"the server names a file {name!r}, which could lie outside the folder")
    with (folder / f".{name}").open("wb") as file:
        shutil.copyfileobj(content, file)
    if name != CONFIG:
        os.replace(folder / f".{name}", folder / name)
