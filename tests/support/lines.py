"""A line to a server: a TCP port that leads to another one, and that a test can break and cut."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine
from typing import Any, Final

_PIECE: Final = 65_536


class Line:
    """Forwards connections to `port` on 127.0.0.1 from a port of `host`, in a thread of its own."""

    def __init__(self, port: int, host: str) -> None:
        self._to = port
        self._socket = socket.create_server((host, 0))
        self.port = int(self._socket.getsockname()[1])
        self._cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"line {self.port}", daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._connected, sock=self._socket))

    def break_connections(self) -> int:
        """End every connection at once, wherever its data has come to; how many there were. New ones may be made."""
        return int(self._run(self._break()))

    def cut(self) -> None:
        """End every connection, and let no new one through."""
        self._cut = True
        self.break_connections()

    def mend(self) -> None:
        """Let connections through again."""
        self._cut = False

    def close(self) -> None:
        """End it all."""
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._socket.close()
        self._loop.close()

    # -- in the thread -----------------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _break(self) -> int:
        broken = len(self._writers)
        for writer in list(self._writers):
            writer.transport.abort()
        return broken // 2

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            await asyncio.gather(_pour(reader, far_writer), _pour(far_reader, writer))
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()


async def _pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while piece := await source.read(_PIECE):
            sink.write(piece)
            await sink.drain()
        sink.write_eof()
    except (OSError, NotImplementedError):
        sink.transport.abort()
