"""Where the bytes of media are: files in a directory tree, written once and never changed.

A file comes into being under a temporary name, is forced to disk, and only then gets to its place: whoever finds it
there finds all of it. What is here blocks and is called on threads, `open_file` excepted. Names are checked: they
have no slashes and no dots.

    local_content/ab/cd/…           uploads of our users, by media id
    local_thumbnails/ab/cd/…/WxH-method.png
    remote_content/ab/cd/…          copies of other servers' files, by an id of our own
    remote_thumbnails/ab/cd/…/
    incoming/                       what is being written
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from contextlib import suppress
from typing import BinaryIO, Final

_MEDIA_ID: Final = re.compile(r"[A-Za-z0-9_=-]{6,255}", re.ASCII)


def is_media_id(text: str) -> bool:
    """Whether media of that id could be in the store."""
    return _MEDIA_ID.fullmatch(text) is not None


class Incoming:
    """A file that is being written: `write`, `complete`, `place`, and in any case `discard` at the end."""

    def __init__(self, directory: str) -> None:
        os.makedirs(directory, exist_ok=True)
        descriptor, self.path = tempfile.mkstemp(dir=directory)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._hash = hashlib.sha256()
        self.length = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.length += len(data)

    def complete(self) -> bytes:
        """All is written: forces it to disk and returns its SHA-256."""
        os.fsync(self._file.fileno())
        os.fchmod(self._file.fileno(), 0o640)
        self._file.close()
        return self._hash.digest()

    def place(self, path: str) -> None:
        """Puts the complete file there, in place of any that is; may be repeated."""
        directory = os.path.dirname(path)
        os.makedirs(directory, exist_ok=True)
        link = f"{self.path}.placed"
        os.link(self.path, link)
        os.replace(link, path)
        _sync_directory(directory)

    def discard(self) -> None:
        """Takes the temporary name away; what was placed stays."""
        self._file.close()
        _remove(self.path)
        _remove(f"{self.path}.placed")


class FileStore:
    """The tree under `root`."""

    def __init__(self, root: str) -> None:
        self._root = root

    def begin(self) -> Incoming:
        """A new file. Raises `OSError` if the directory cannot be written."""
        return Incoming(os.path.join(self._root, "incoming"))

    def local(self, media_id: str) -> str:
        return self._path("local_content", media_id)

    def remote(self, filesystem_id: str) -> str:
        return self._path("remote_content", filesystem_id)

    def local_thumbnail(self, media_id: str, width: int, height: int, method: str) -> str:
        return os.path.join(self._path("local_thumbnails", media_id), f"{width}x{height}-{method}")

    def delete_remote(self, filesystem_id: str) -> None:
        """Deletes a copy and its thumbnails; that they are not there is no error."""
        _remove(self.remote(filesystem_id))
        shutil.rmtree(self._path("remote_thumbnails", filesystem_id), ignore_errors=True)

    def sweep(self, before: float) -> int:
        """Deletes what a killed process left unfinished before that time (seconds); returns how many files."""
        incoming = os.path.join(self._root, "incoming")
        if not os.path.isdir(incoming):
            return 0
        old = [entry.path for entry in os.scandir(incoming) if entry.stat().st_mtime < before]
        for path in old:
            _remove(path)
        return len(old)

    def _path(self, kind: str, name: str) -> str:
        if not is_media_id(name):
            raise ValueError("not a media id")
        return os.path.join(self._root, kind, name[:2], name[2:4], name[4:])


def open_file(path: str) -> BinaryIO | None:
    """None if there is no such file."""
    try:
        return open(path, "rb")
    except FileNotFoundError:
        return None


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
