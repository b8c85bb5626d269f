"""Real processes: how they start, take over from one another, and end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.app.processes import ROOT, Place, free_port


def pid_of(answer: str) -> int:
    number: int = json.loads(answer)["pid"]
    return number


def test_it_serves_says_so_and_leaves_when_told(place: Place) -> None:
    process = place.start("-c", place.write()).ready()
    assert pid_of(place.get("now")) == process.pid == place.pid()
    assert process.heard.index("STATUS=waiting for the lease") < process.heard.index("READY=1")
    process.tell(signal.SIGTERM)
    status, errors = process.finish()
    assert status == 0, errors
    assert "STOPPING=1" in list(process.says())
    assert not place.pid_file.exists()
    with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
        sock.connect(("127.0.0.1", place.port))


def test_requests_in_flight_are_answered_and_long_polls_at_once(place: Place, tmp_path: Path) -> None:
    go = tmp_path / "go"
    process = place.start("-c", place.write(), FAKE_GO=str(go)).ready()
    with ThreadPoolExecutor(2) as threads:
        slow, poll = threads.submit(place.get, "slow"), threads.submit(place.get, "poll")
        _wait_for_requests(place, 2)
        process.tell(signal.SIGTERM)
        assert pid_of(poll.result()) == process.pid
        process.wait_for("STOPPING=1")
        assert not slow.done()
        go.touch()
        assert pid_of(slow.result()) == process.pid
    assert process.finish()[0] == 0


def _wait_for_requests(place: Place, number: int) -> None:
    """Until that many are in flight; /fake/flight says how many there are besides itself."""
    while json.loads(place.get("flight"))["others"] < number:
        pass


def test_a_second_signal_is_the_end(place: Place, tmp_path: Path) -> None:
    process = place.start("-c", place.write(), FAKE_GO=str(tmp_path / "never")).ready()
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(place.get, "slow")
        _wait_for_requests(place, 1)
        process.tell(signal.SIGTERM)
        process.wait_for("STOPPING=1")
        process.tell(signal.SIGTERM)
        assert process.finish()[0] == 0
        assert slow.exception() is not None


def test_hangup_reopens_the_log(place: Place, tmp_path: Path) -> None:
    log = tmp_path / "hs.log"
    config = {
        "version": 1,
        "handlers": {"file": {"class": "logging.FileHandler", "filename": str(log)}},
        "root": {"level": "INFO", "handlers": ["file"]},
    }
    log_config = tmp_path / "log.yaml"
    log_config.write_text(json.dumps(config))
    process = place.start("-c", place.write(log_config=str(log_config))).ready()
    assert "serves" in log.read_text()
    log.rename(tmp_path / "hs.log.1")
    process.tell(signal.SIGHUP)
    process.wait_for("RELOADING=1")
    place.get("now")
    assert "Reopened" in log.read_text()
    assert place.pid() == process.pid


def test_in_the_background(place: Place) -> None:
    started = place.start("-c", place.write(), "-D")
    status, errors = started.finish()  # returns when the process serves
    assert (status, started.heard or list(started.says())[-3:][0]) == (0, "READY=1"), errors
    daemon = place.pid()
    assert daemon != started.pid
    assert pid_of(place.get("now")) == daemon
    assert os.getsid(daemon) != os.getsid(0)
    assert all(os.readlink(f"/proc/{daemon}/fd/{number}") == "/dev/null" for number in (0, 1, 2))
    _end(daemon)


def _end(pid: int) -> None:
    watch = os.pidfd_open(pid)
    os.kill(pid, signal.SIGTERM)
    import select

    assert select.select([watch], [], [], 10)[0]
    os.close(watch)


def test_daemonize_of_the_configuration_and_its_opposite(place: Place) -> None:
    path = place.write(daemonize=True)
    foreground = place.start("-c", path, "--no-daemonize").ready()
    assert place.pid() == foreground.pid
    foreground.tell(signal.SIGTERM)
    foreground.finish()
    assert place.start("-c", path).finish()[0] == 0
    _end(place.pid())


def test_a_failed_start_in_the_background_is_seen_in_the_foreground(place: Place) -> None:
    started = place.start("-c", place.write(), "-D", FAKE_DATABASE_PROBLEM="The database is out; bring it back.")
    assert started.finish() == (1, "The database is out; bring it back.\n")


def test_a_second_start_is_refused_by_the_pid_file(place: Place) -> None:
    first = place.start("-c", place.write()).ready()
    status, errors = place.start("-c", place.write()).finish()
    assert status == 1
    assert errors.count("\n") == 1
    assert f"`pid_file` is {place.pid_file}, in which process {first.pid} is already running" in errors
    assert place.pid() == first.pid
    assert pid_of(place.get("now")) == first.pid


def test_a_stale_pid_file_is_no_obstacle(place: Place) -> None:
    killed = place.start("-c", place.write()).ready()
    killed.tell(signal.SIGKILL)
    killed.finish()
    assert place.pid() == killed.pid
    # Even if the number is somebody else's by now.
    place.pid_file.write_text(str(os.getpid()))
    assert place.start("-c", place.write()).ready().pid == place.pid()


def test_a_port_in_use_is_refused(place: Place, tmp_path: Path) -> None:
    place.start("-c", place.write()).ready()
    status, errors = place.start("-c", place.write(pid_file=str(tmp_path / "other.pid"))).finish()
    assert status == 1
    assert errors == (
        f"{place.directory}/homeserver.yaml, line {_line(place, 'listeners')}: `listeners[0].port` is {place.port}, "
        "which is already in use on 127.0.0.1; stop the process that listens there, or choose another port.\n"
    )


def _line(place: Place, option: str) -> int:
    lines = (place.directory / "homeserver.yaml").read_text().split("\n")
    return next(number for number, line in enumerate(lines, 1) if line.startswith(f"{option}:"))


def test_a_start_that_fails_once_the_reactor_runs(place: Place, tmp_path: Path) -> None:
    lease = tmp_path / "lease"
    lease.touch()
    process = place.start("-c", place.write(), FAKE_LEASE=str(lease))
    status, errors = process.finish()
    assert status == 1
    assert "Another main process is running; stop it first.\n" in errors
    assert "Traceback" not in errors
    assert "READY=1" not in list(process.says())
    assert not place.pid_file.exists()


def test_a_process_that_never_got_to_serve_is_stopped_like_any_other(place: Place) -> None:
    """A worker, say, whose main process is not there."""
    process = place.start("-c", place.write(), FAKE_ALONE="1")
    process.wait_for("ALONE=1")
    process.tell(signal.SIGTERM)
    status, log = process.finish()
    assert status == 0
    assert not [word for word in ("Traceback", "WARNING", "ERROR", "CRITICAL") if word in log]


def test_services_that_can_do_no_more_end_the_process_with_a_sentence(place: Place) -> None:
    process = place.start("-c", place.write()).ready()
    with contextlib.suppress(OSError, http.client.HTTPException):  # whether this is still answered does not matter
        place.get("end")
    status, errors = process.finish()
    assert status == 1
    assert "The lease is lost.\n" in errors
    assert "Traceback" not in errors
    assert not place.pid_file.exists()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_new_process_takes_over_without_failing_a_request(place: Place, tmp_path: Path, kind: str) -> None:
    lease, go = tmp_path / "lease", tmp_path / "go"
    path = place.write()
    if kind == "unix":
        place.options["listeners"].append(
            {"type": "http", "path": str(tmp_path / "s"), "resources": [{"names": ["client"]}]}
        )
        path = place.write()
    common = {"FAKE_LEASE": str(lease), "FAKE_GO": str(go)}
    old = place.start("-c", path, **common).ready()

    def ask(what: str) -> int:
        return pid_of(_get_unix(tmp_path / "s", what) if kind == "unix" else place.get(what))

    with ThreadPoolExecutor(12) as threads:
        slow = threads.submit(ask, "slow")
        _wait_for_requests(place, 1)
        new = place.start("-c", path, SYNAPSE_REPLACES=str(old.pid), **common)
        new.wait_for("STANDBY=1")
        assert "READY=1" not in new.heard
        waiting = [threads.submit(ask, "now") for _ in range(10)]
        old.tell(signal.SIGTERM)
        old.wait_for("STOPPING=1")
        go.touch()
        assert slow.result() == old.pid
        new.wait_for("READY=1")
        assert old.finish()[0] == 0
        assert {answer.result() for answer in waiting} <= {old.pid, new.pid}
    assert ask("now") == new.pid == place.pid()
    new.tell(signal.SIGTERM)
    assert new.finish()[0] == 0
    assert not (tmp_path / "s").exists()


def _get_unix(path: Path, what: str) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(path))
        sock.sendall(f"GET /fake/{what} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        received = b"".join(iter(lambda: sock.recv(65536), b""))
    return received.partition(b"\r\n\r\n")[2].decode()


def test_unix_sockets_of_the_dead_are_replaced_and_those_of_the_living_are_not(place: Place, tmp_path: Path) -> None:
    unix = {"type": "http", "path": str(tmp_path / "s"), "mode": "0600", "resources": [{"names": ["client"]}]}
    process = place.start("-c", place.write(listeners=[unix])).ready()
    assert pid_of(_get_unix(tmp_path / "s", "now")) == process.pid
    assert os.stat(tmp_path / "s").st_mode & 0o777 == 0o600
    status, errors = place.start("-c", place.write(listeners=[unix], pid_file=None)).finish()
    assert (status, "`listeners[0].path`" in errors, "already in use" in errors) == (1, True, True)
    process.tell(signal.SIGKILL)
    process.finish()
    second = place.start("-c", place.write(listeners=[unix])).ready()
    assert pid_of(_get_unix(tmp_path / "s", "now")) == second.pid


def test_all_addresses_of_both_families(place: Place) -> None:
    everywhere = place.options["listeners"][0] | {"bind_address": None}
    process = place.start("-c", place.write(listeners=[everywhere])).ready()
    assert pid_of(place.get("now")) == process.pid
    with socket.socket(socket.AF_INET6) as sock:
        sock.connect(("::1", place.port))


def test_its_name_says_what_it_is(place: Place) -> None:
    path = place.write()
    process = place.start("-c", os.path.relpath(path, ROOT)).ready()
    name = Path(f"/proc/{process.pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode()
    assert name == f"python -m synapse.app.homeserver -c {path}"


def test_what_a_start_without_tls_does_not_load(place: Place) -> None:
    process = place.start("-c", place.write()).ready()
    loaded = Path(f"/proc/{process.pid}/maps").read_text()
    assert "cryptography" not in loaded


def test_tls_and_a_new_certificate_after_a_hangup(place: Place, tmp_path: Path) -> None:
    names = {"tls_certificate_path": str(tmp_path / "crt"), "tls_private_key_path": str(tmp_path / "key")}
    first = _certificate(tmp_path)
    port = free_port()
    tls = place.options["listeners"][0] | {"port": port, "tls": True}
    process = place.start("-c", place.write(listeners=[*place.options["listeners"], tls], **names)).ready()
    assert _presented(port) == first
    second = _certificate(tmp_path)
    process.tell(signal.SIGHUP)
    process.wait_for("RELOADING=1")
    place.get("now")
    assert _presented(port) == second != first
    (tmp_path / "key").write_text("no key")
    process.tell(signal.SIGHUP)
    place.get("now")
    assert _presented(port) == second
    process.tell(signal.SIGTERM)
    _, said = process.finish()
    assert "Traceback" not in said
    assert "Warning: <synapse" not in said, "Twisted takes the certificate as it is"


def test_a_certificate_that_is_none(place: Place, tmp_path: Path) -> None:
    _certificate(tmp_path)
    (tmp_path / "crt").write_text("nothing")
    names = {"tls_certificate_path": str(tmp_path / "crt"), "tls_private_key_path": str(tmp_path / "key")}
    tls = place.options["listeners"][0] | {"tls": True}
    status, errors = place.start("-c", place.write(listeners=[tls], **names)).finish()
    assert status == 1
    assert f"`tls_certificate_path` names {tmp_path / 'crt'}, which cannot be read as a certificate" in errors
    assert "Traceback" not in errors


def _certificate(directory: Path) -> bytes:
    """A new self-signed certificate, as `crt` and `key`; returns it in DER."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    (directory / "crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))
    return certificate.public_bytes(serialization.Encoding.DER)


def _presented(port: int) -> bytes | None:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10)) as sock:
        sock.sendall(b"GET /fake/now HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
        return sock.getpeercert(binary_form=True)


def test_the_start_takes_less_than_a_second_of_cpu(place: Place) -> None:
    """CPU rather than time: what else the machine does is not our business. A good machine needs a quarter of it."""
    before = os.times().children_user + os.times().children_system
    process = place.start("-c", place.write()).ready()
    process.tell(signal.SIGTERM)
    assert process.finish()[0] == 0
    assert os.times().children_user + os.times().children_system - before < 1.0


def test_forked_from_one_image(place: Place) -> None:
    """As synctl does it: nothing that was loaded before the fork may belong to a reactor, a thread or a file."""
    script = (
        "import os, sys, threading\n"
        "from synapse.app import _start\n"
        "_start.preload()\n"
        "assert 'twisted.internet.reactor' not in sys.modules\n"
        "assert threading.active_count() == 1\n"
        "for number in range(3, 100):\n"
        "    assert not os.path.exists(f'/proc/self/fd/{number}')\n"
        "assert 'OpenSSL' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_port_is_free_while_requests_in_flight_are_answered(place: Place, tmp_path: Path) -> None:
    go = tmp_path / "go"
    process = place.start("-c", place.write(), FAKE_GO=str(go)).ready()
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(place.get, "slow")
        _wait_for_requests(place, 1)
        process.tell(signal.SIGTERM)
        process.wait_for("STATUS=answering what is in flight")
        second = place.start("-c", place.write(pid_file=None), FAKE_GO=str(go)).ready()
        assert pid_of(place.get("now")) == second.pid
        go.touch()
        assert pid_of(slow.result()) == process.pid
