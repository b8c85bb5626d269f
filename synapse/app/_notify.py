"""Telling whoever started this process how it is: systemd's protocol, datagrams on `$NOTIFY_SOCKET`.

`STATUS=…` while it starts, `READY=1` once it serves, `STOPPING=1` when it begins to leave; see sd_notify(3). Without
the variable nothing is sent; a receiver that is gone or busy is no reason to stop.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

READY: Final = "READY=1"
STANDBY: Final = "STANDBY=1"
STOPPING: Final = "STOPPING=1"
RELOADING: Final = "RELOADING=1"


def notify(*states: str) -> None:
    """Send assignments such as `READY=1` or `STATUS=…`, all in one datagram."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # the abstract namespace of Linux
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(1.0)  # a receiver that does not read must not hold up the start
        sender.sendto("\n".join(states).encode(), address)


def notify_status(text: str) -> None:
    """What the process is doing, for people."""
    notify(f"STATUS={text}")
