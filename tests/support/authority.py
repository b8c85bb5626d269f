"""An authority of the tests' own, and the certificates that it issues: files in PEM."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import trustme


class Issued(NamedTuple):
    """A certificate: its chain and its key, in two files and in one."""

    chain: Path
    key: Path
    both: Path


class Authority:
    """Issues certificates; `path` is its own, which whoever trusts it has to know."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = trustme.CA()
        self.path = directory / "authority.pem"
        self._authority.cert_pem.write_to_path(self.path)

    def issue(self, *hosts: str, directory: Path | None = None, not_after: datetime | None = None) -> Issued:
        """A certificate for hosts, names or addresses; its files are called like the first."""
        made = self._authority.issue_cert(*hosts, not_after=not_after)
        place = (directory or self._directory) / hosts[0]
        issued = Issued(place.with_suffix(".crt"), place.with_suffix(".key"), place.with_suffix(".pem"))
        issued.chain.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(issued.key)
        made.private_key_and_cert_chain_pem.write_to_path(issued.both)
        return issued
