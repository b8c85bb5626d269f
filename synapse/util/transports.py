"""Writing to connections at once, and reading from them.

Twisted writes when its loop comes round to it and the socket has said that it is ready: two system calls and a turn
of the loop for every message, which for small ones is more than the message itself costs. Here, where nothing waits
to be written before it, a message goes to the socket directly; what the socket does not take, Twisted writes later.
Reading is for who must know just now what has come.

Nothing of Twisted is imported, since its sockets come with the reactor.
"""

from __future__ import annotations

import fcntl
import termios
from array import array
from typing import Any, Final

_MAX_READS: Final = 100
"""Of 64 KiB each: more than the buffers of a socket's two ends hold."""


def write_at_once(transport: Any, data: bytes) -> None:
    """Like `transport.write(data)`, which it is for transports that are not plain sockets."""
    if _is_socket(transport) and not transport.dataBuffer and not transport._tempDataBuffer:
        try:
            sent = transport.socket.send(data)
        except OSError:
            sent = 0  # the socket is full, or gone, which the transport finds out and tells in its own way
        if sent == len(data):
            return
        data = data[sent:]
    transport.write(data)


def read_at_once(transport: Any) -> None:
    """Hands what has come to the transport's protocol, as Twisted's loop will do bit by bit: all of it, unless the
    other side says more meanwhile without end. Of plain sockets alone. A protocol that raises loses its connection, as
    it does to the loop: it has not heard what came with that."""
    for _ in range(_MAX_READS):
        if not _is_socket(transport) or not _has_come(transport):
            break  # if the other side has ended the connection, the loop finds that out
        try:
            transport.doRead()
        except BaseException:
            transport.abortConnection()
            raise


def _has_come(transport: Any) -> bool:
    """Whether bytes have come that nobody has read."""
    count = array("i", [0])
    fcntl.ioctl(transport.socket, termios.FIONREAD, count)
    return count[0] > 0


def _is_socket(transport: Any) -> bool:
    """Whether this is a `twisted.internet.tcp.Connection` (or a unix one), open and without TLS."""
    # Not hasattr: the transports of TLS answer with what lies beneath them.
    if "_tempDataBuffer" not in vars(transport):
        return False
    return transport.connected and not transport.disconnecting and not getattr(transport, "TLS", False)
