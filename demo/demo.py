"""What demo/start and demo/stop do, once there is an environment to run Python in.

Each step is what an administrator would type, and is shown as such.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import account
import front
import site_files
from synapse.synctl.running import running_processes

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
BIN = Path(sys.executable).parent


class DemoError(Exception):
    """A step that failed; the message says what to do."""


def start() -> None:
    """Start everything, and say where it is."""
    if DATA.exists() and DATA.stat().st_uid != os.geteuid():
        raise DemoError(f"{DATA} belongs to another user. Run the demo as that user, or remove the directory.")
    DATA.mkdir(exist_ok=True)
    ports = site_files.prepare(DATA, running=runs())
    say("Starting the main process and ten workers:")
    if run("synctl", "-a", str(DATA / "workers"), "start", str(DATA / "homeserver.yaml")):
        raise DemoError(f"The server did not start; the lines above say why. Its logs are in {DATA}/logs.")
    say("Starting nginx in front of them:")
    front.start(DATA, ports.front, BIN / "synctl")
    url = f"http://localhost:{ports.front}"
    check(url)
    user = account.ready_made(DATA, url)
    show(url, user)


def stop() -> None:
    """Stop everything that runs."""
    if not (DATA / "homeserver.yaml").exists():
        say("The demo has never been started here.")
        return
    front.stop(DATA)
    if run("synctl", "-a", str(DATA / "workers"), "stop", str(DATA / "homeserver.yaml")):
        raise DemoError("Not everything stopped as it should have; the lines above say what.")
    say(f"Everything has stopped. The data is kept in {DATA}; ./demo/start goes on with it.")


def runs() -> bool:
    """Whether anything of the demo runs, and so holds its ports."""
    ours = str(DATA / "homeserver.yaml")
    return front.is_running(DATA) or any(process.belongs_to(ours) for process in running_processes())


def run(program: str, *arguments: str) -> int:
    """Run one of the programs of this environment; its exit status."""
    say("  $ " + " ".join([program, *arguments]))
    return subprocess.run([str(BIN / program), *arguments], cwd=DATA, check=False).returncode


def check(url: str) -> None:
    """See whether the whole chain answers: nginx, a worker, the database."""
    try:
        with urllib.request.urlopen(f"{url}/_matrix/client/versions", timeout=20) as answer:
            json.load(answer)
    except (OSError, ValueError) as error:
        raise DemoError(f"{url} does not answer as it should ({error}); see {DATA}/logs and {DATA}/nginx.") from None


def show(url: str, user: account.Account) -> None:
    """The last words: where, who, and how to stop."""
    say(
        f"""
Synapse is ready.

  Homeserver URL   {url}
  User             {user.user_id}
  Password         {user.password}
  Processes        {BIN}/synctl -a {DATA}/workers status
  Files            {DATA}

Enter the URL as the homeserver of a Matrix client, or try:

  curl -X POST {url}/_matrix/client/v3/login -d \\
    '{{"type":"m.login.password","identifier":{{"type":"m.id.user","user":"{user.name}"}},"password":"{user.password}"}}'

Stop it with {HERE}/stop"""
    )


def say(text: str) -> None:
    """Print at once, in step with what the programs that are called print."""
    print(text, flush=True)


def main() -> int:
    """Carry out `start` or `stop`."""
    try:
        {"start": start, "stop": stop}[sys.argv[1]]()
    except (DemoError, front.FrontError, account.AccountError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
