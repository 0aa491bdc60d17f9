"""Download URLs that work without a key, for a while: the signature is in the URL itself.

Owns: signing, and checking what was signed. The SDK and its command line fetch checkpoint files
with plain HTTP clients that send no header.
"""

import hashlib
import hmac
import tarfile
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote

from cookbook.engine.errors import NotFoundError
from cookbook.engine.store import CheckpointRef, Store, parse_path

FILES = "files"  # first part of the URLs' path
VALID_S = 3600
ARCHIVE = "archive.tar"


@dataclass(frozen=True)
class FileUrls:
    """Signs and opens URLs of one engine's checkpoint files."""

    store: Store
    secret: str

    def sign(self, base_url: str, ref: CheckpointRef, file: str) -> tuple[str, datetime]:
        """Return a URL of a checkpoint's file, and when it ends to work."""
        expires = int(time.time()) + VALID_S
        what = f"{expires}/{quote(ref.run_id)}/{ref.segment}/{ref.name}/{quote(file)}"
        url = f"{base_url.rstrip('/')}/{FILES}/{self._signature(what)}/{what}"
        return url, datetime.fromtimestamp(expires, UTC)

    def file(self, rest: str) -> Path:
        """Return the file of a signed URL, `rest` being all after ``files/``.

        Raises:
            NotFoundError: not signed by this engine, too old, or the checkpoint is gone.
        """
        signature, _, signed = rest.partition("/")
        expires, _, path = signed.partition("/")
        what = f"{expires}/{quote(unquote(path))}"
        fine = hmac.compare_digest(signature.encode(), self._signature(what).encode())
        if not fine or int(expires) < time.time():
            raise NotFoundError("this download link is not (or no longer) valid; ask for a new one")
        run_id, segment, name, file = unquote(path).split("/")
        ref = parse_path(f"tinker://{run_id}/{segment}/{name}")
        self.store.load_manifest(ref)
        return self.store.folder(ref) / file

    def names(self, ref: CheckpointRef) -> list[str]:
        """Return the names of a checkpoint's files that others can use."""
        self.store.load_manifest(ref)
        return sorted(file.name for file in self.store.folder(ref).glob("adapter_*"))

    def _signature(self, what: str) -> str:
        return hmac.new(self.secret.encode(), what.encode(), hashlib.sha256).hexdigest()


def write_archive(folder: Path) -> Path:
    """Return a new temporary tar file with the adapter's files of a checkpoint folder."""
    with tempfile.NamedTemporaryFile(suffix=".tar", delete=False) as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for member in sorted(folder.glob("adapter_*")):
                archive.add(member, arcname=member.name)
        return Path(file.name)
