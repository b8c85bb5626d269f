"""Binding: what the kernel says, in sentences; and steering connections to the newest socket."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from synapse.app._sockets import AddressError, Bound, bind, steer_to_newest
from synapse.config.listeners import Listener
from tests.app.processes import free_port


def listener(**options: object) -> Listener:
    return Listener(type="http", **options)  # type: ignore[arg-type]  # of the right types, in each test


def close(sockets: list[Bound]) -> None:
    for bound in sockets:
        bound.close()


def test_a_port_in_use_is_found_even_if_it_could_be_shared() -> None:
    first = bind(listener(port=free_port(), bind_address="127.0.0.1"))
    first[0].queue()
    with pytest.raises(AddressError, match=r"already in use on 127\.0\.0\.1"):
        bind(listener(port=first[0].port, bind_address="127.0.0.1"))
    beside = bind(listener(port=first[0].port, bind_address="127.0.0.1"), beside=True)
    close(first + beside)


def test_addresses_of_other_machines() -> None:
    with pytest.raises(AddressError, match="no address of this machine"):
        bind(listener(port=free_port(), bind_address="192.0.2.1"))


def test_a_failure_lets_go_of_what_was_bound_before() -> None:
    port = free_port()
    with pytest.raises(AddressError):
        bind(listener(port=port, bind_addresses=("127.0.0.1", "192.0.2.1")))
    close(bind(listener(port=port, bind_address="127.0.0.1")))


def test_unix_sockets_get_their_name_when_they_listen(tmp_path: Path) -> None:
    path = tmp_path / "s"
    (bound,) = bind(listener(path=str(path), mode=0o600))
    assert not path.exists()
    bound.queue()
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(AddressError, match="already in use"):
        bind(listener(path=str(path)))
    bound.close()
    assert list(tmp_path.iterdir()) == []


def test_a_unix_socket_that_was_replaced_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    (old,) = bind(listener(path=str(path)))
    old.queue()
    (new,) = bind(listener(path=str(path)), beside=True)
    new.queue()
    old.close()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    new.close()


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(AddressError, match="no socket can be made"):
        bind(listener(path=str(tmp_path / ("s" * 200))))


def test_new_connections_go_to_the_newest_socket() -> None:
    (old,) = bind(listener(port=free_port(), bind_address="127.0.0.1"))
    old.queue()
    for _ in range(2):  # the second time, what was the new one is the old one
        (new,) = bind(listener(port=old.port, bind_address="127.0.0.1"), beside=True)
        new.queue()
        steer_to_newest(new.socket)
        clients = [socket.create_connection(("127.0.0.1", old.port)) for _ in range(20)]
        assert (_waiting(old), _waiting(new)) == (0, 20)
        for client in clients:
            client.close()
        old.close()
        old = new
    old.close()


def _waiting(bound: Bound) -> int:
    count = 0
    while True:
        try:
            accepted, _ = bound.socket.accept()
        except BlockingIOError:
            return count
        accepted.close()
        count += 1
