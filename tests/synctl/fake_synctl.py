"""synctl with processes that start as real ones do but serve nothing: for tests of what synctl itself does.

Run as a script with synctl's arguments. How a process behaves is read from files `<name>.<behaviour>` beside
homeserver.yaml: `fails` (its content is said on stderr), `silent` (never ready), `stubborn` (ignores SIGTERM).
"""

import os
import signal
import socket
import sys
import types
from pathlib import Path

from setproctitle import setproctitle

from synapse.config import load
from synapse.synctl import cli


def notify(text: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])


def main(arguments: list[str]) -> int:
    """What `synapse.app._start.main` promises, and no more."""
    files = [argument for argument in arguments if argument.endswith(".yaml")]
    config = load(files)
    setproctitle(" ".join(["python -m", config.app, *(f"-c {file}" for file in files)]))
    base = Path(files[0]).parent
    name = config.instance_name
    with (base / "journal").open("a") as journal:
        journal.write(f"start {name} {os.environ.get('SYNAPSE_REPLACES', '-')}\n")
    if (base / f"{name}.fails").exists():
        print((base / f"{name}.fails").read_text(), file=sys.stderr)
        return 1
    wanted = {signal.SIGTERM, signal.SIGINT}
    if (base / f"{name}.stubborn").exists():
        wanted.clear()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted | {signal.SIGALRM})
    if not (base / f"{name}.silent").exists():
        notify("STATUS=waking up")
        if "SYNAPSE_REPLACES" in os.environ:
            notify("STANDBY=1")
        notify("READY=1")
    pid_file = Path(config.pid_file or base / f"{name}.pid")
    pid_file.write_text(f"{os.getpid()}\n")
    signal.alarm(60)  # no test may leave a process behind for long
    signal.sigwait(wanted | {signal.SIGALRM})
    with (base / "journal").open("a") as journal:
        journal.write(f"stop {name}\n")
    if pid_file.read_text() == f"{os.getpid()}\n":
        pid_file.unlink()
    return 0


if __name__ == "__main__":
    fake = types.ModuleType("synapse.app._start")
    fake.main = main  # type: ignore[attr-defined]  # that is what makes it fake
    fake.preload = lambda: None  # type: ignore[attr-defined]
    sys.modules["synapse.app._start"] = fake
    import synapse.app

    synapse.app._start = fake  # type: ignore[attr-defined]
    sys.exit(cli.main(sys.argv[1:]))
