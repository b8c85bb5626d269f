"""Sockets of listeners: bound by ourselves, because a new process must be able to bind beside the one that it replaces.

    (bound,) = bind(listener, beside=False)  # refuses a port that somebody listens on
    bound.queue()                            # from here on the kernel keeps connections for us
    port = accept(reactor, bound, factory)   # and from here on we take them

All TCP sockets have SO_REUSEPORT, so that during a restart the old and the new process can both hold the port; which of
them gets a new connection is then for `steer_to_newest` to say. A unix socket is bound under a new name that replaces
the old one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from synapse.config.listeners import Listener

BACKLOG: Final = 1024
_SO_ATTACH_REUSEPORT_CBPF: Final = 51  # Linux; the socket module has no name for it
_NO_SUCH_FAMILY: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class Bound:
    """One socket, and the address that it was bound to."""

    def __init__(self, sock: socket.socket, address: str, path: str | None = None) -> None:
        self.socket = sock
        self.address = address
        self.path = path
        self._temporary = f"{path}.{os.getpid()}" if path else None
        self._inode = os.stat(self._temporary).st_ino if self._temporary else 0

    @property
    def port(self) -> int:
        """The TCP port, as the system gave it."""
        port: int = self.socket.getsockname()[1]
        return port

    def queue(self) -> None:
        """Let the kernel keep connections for us, ahead of a process that listens here as well."""
        self.socket.listen(BACKLOG)
        if self.path and self._temporary:
            os.rename(self._temporary, self.path)
            self._temporary = None

    def close(self) -> None:
        """Let go of the address; a unix socket's name goes too, unless it is another process's by now."""
        name = self._temporary or self.path
        if name is not None:
            with contextlib.suppress(OSError):
                if self._temporary or os.stat(name).st_ino == self._inode:
                    os.unlink(name)
        self.socket.close()


class AddressError(Exception):
    """An address that cannot be bound: what is wrong with it, and what to do, as in `ConfigError`."""

    def __init__(self, address: str, problem: str, remedy: str) -> None:
        super().__init__(address, problem, remedy)
        self.address = address
        self.problem = problem
        self.remedy = remedy


def bind(listener: Listener, *, beside: bool = False) -> list[Bound]:
    """The sockets of a listener, bound but not listening. Raises `AddressError`.

    :param beside: whether another process may be listening there, because this one takes over from it.
    """
    if listener.path is not None:
        return [_bind_unix(listener.path, listener.mode, beside)]
    assert listener.port is not None
    found = []
    for address in listener.addresses:
        both = "0.0.0.0" in listener.addresses
        try:
            found.append(Bound(_bind_tcp(address, listener.port, beside, both), address))
        except OSError as error:
            if address == "::" and both and error.errno in _NO_SUCH_FAMILY:
                continue  # a machine without IPv6
            for bound in found:
                bound.close()
            raise _explained(error, address, listener.port) from None
    return found


def _bind_tcp(address: str, port: int, beside: bool, v6_only: bool) -> socket.socket:
    address = "127.0.0.1" if address == "localhost" else address
    if not beside:
        _tcp(address, port, v6_only, reuse=False).close()
    return _tcp(address, port, v6_only, reuse=True)


def _tcp(address: str, port: int, v6_only: bool, *, reuse: bool) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(v6_only))
        if reuse:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def _explained(error: OSError, address: str, port: int) -> AddressError:
    if error.errno == errno.EADDRINUSE:
        return AddressError(
            address,
            f"is {port}, which is already in use on {address}",
            "stop the process that listens there, or choose another port",
        )
    if error.errno == errno.EACCES:
        return AddressError(
            address,
            f"is {port}, which only privileged processes may use",
            "choose a port above 1023, with a reverse proxy in front",
        )
    if error.errno in _NO_SUCH_FAMILY:
        return AddressError(
            address, f"cannot be bound on {address}, which is no address of this machine", "correct bind_address"
        )
    return AddressError(address, f"cannot be bound on {address} ({error.strerror})", "choose another address or port")


def _bind_unix(path: str, mode: int, beside: bool) -> Bound:
    if not beside and _somebody_listens(path):
        raise AddressError(
            path, f"is {path}, which is already in use", "stop the process that listens there, or choose another path"
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    temporary = f"{path}.{os.getpid()}"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        sock.bind(temporary)
        os.chmod(temporary, mode)
        return Bound(sock, path, path)
    except OSError as error:
        sock.close()
        raise AddressError(
            path,
            f"is {path}, where no socket can be made ({error.strerror})",
            "name a directory that exists and can be written to; 100 characters are the most",
        ) from None


def _somebody_listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except TimeoutError:
            return True
        except OSError:  # nothing there, or a socket whose process is gone
            return False
        return True


def steer_to_newest(sock: socket.socket) -> None:
    """Have the kernel give new connections to the socket that joined the port last: ours, not the one before it.

    Without this they would go to both processes by chance, and those that reach the old one as it closes would be
    reset. Where the kernel does not know how, chance it is.
    """
    import ctypes

    instruction = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 1), 8)  # BPF: return 1, the second socket
    program = struct.pack("HxxxxxxP", 1, ctypes.addressof(instruction))
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)


def accept(reactor: Any, bound: Bound, factory: Any) -> Any:
    """Take the connections of a listening socket; returns Twisted's port."""
    if bound.path is None:
        return reactor.adoptStreamPort(bound.socket.fileno(), bound.socket.family, factory)
    return _unix_port(reactor, bound.socket, factory)


def _unix_port(reactor: Any, sock: socket.socket, factory: Any) -> Any:
    """Twisted's own way to adopt a unix socket expects it under its first name, and removes the name in the end."""
    from twisted.internet import tcp, unix

    base: Any = unix.Port  # Twisted's types do not cover what a port is made of

    class Port(base):  # type: ignore[misc]  # see above
        def startListening(self) -> None:
            self.factory.doStart()
            self.socket = sock.dup()
            self.fileno = self.socket.fileno
            self.connected = True
            self._shouldShutdown = False
            self.numberAccepts = 100
            self.startReading()

        def connectionLost(self, reason: Any) -> None:
            tcp_port: Any = tcp.Port
            tcp_port.connectionLost(self, reason)

    port = Port(b"", factory, reactor=reactor)
    port.startListening()
    return port


def drain(port: Any) -> None:
    """Accept what the kernel's queue still holds, unless it is closed: a reactor that stops closes its ports."""
    if getattr(port, "socket", None) is None:
        return
    poll = select.poll()
    poll.register(port.socket, select.POLLIN)
    while poll.poll(0):
        port.doRead()
