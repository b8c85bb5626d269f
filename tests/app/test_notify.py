"""Telling whoever started the process."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from synapse.app._notify import READY, notify, notify_status


@pytest.mark.parametrize("abstract", [False, True])
def test_all_in_one_datagram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"@{tmp_path.name}" if abstract else str(tmp_path / "n")
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{tmp_path.name}" if abstract else name)
        receiver.settimeout(5)
        notify(READY, "STATUS=serving")
        notify_status("lost")
        assert receiver.recv(100) == b"READY=1\nSTATUS=serving"
        assert receiver.recv(100) == b"STATUS=lost"


@pytest.mark.parametrize("name", ["", "relative", "/nowhere/at/all"])
def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    notify(READY)
