"""Identity providers as processes of their own, for tests: `running` starts one, a script beside this file."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Provider:
    """A provider that runs. `url` is its root, without a slash at the end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.url = process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:"), self.url

    def set(self, **behaviour: Any) -> None:
        """How it shall behave from now on, in place of all that was said before."""
        body = json.dumps(behaviour).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/_test/behave", body), timeout=10) as answer:
            assert answer.status == 200

    def asked(self) -> list[dict[str, Any]]:
        """The requests that it has had since `set`."""
        with urllib.request.urlopen(f"{self.url}/_test/asked", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found


@contextmanager
def running(name: str, *arguments: str) -> Iterator[Provider]:
    """Starts the provider of that name, at a port of the system's choice."""
    script = str(Path(__file__).with_name(f"{name}.py"))
    with subprocess.Popen([sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Provider(process)
        finally:
            process.terminate()
            process.wait(10)
