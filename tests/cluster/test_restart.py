"""synctl restarts every process, one after the other, while clients go on: no request fails and no message is lost."""

from __future__ import annotations

import http.client
import json
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

from tests.support.cluster import Cluster

_C = "/_matrix/client/v3"
_EVERYTHING = quote('{"room":{"timeline":{"limit":1000}}}')


class Client:
    """One user's requests on one kept connection. Every answer but 200 is remembered as a failure."""

    def __init__(self, cluster: Cluster, token: str = "") -> None:
        url = urlsplit(cluster.url)
        self._connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=60)
        self._token = token
        self.failures: list[tuple[str, str, int, bytes]] = []

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body)
        self._connection.request(method, path, data, {"Authorization": f"Bearer {self._token}"})
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != 200:
            self.failures.append((method, path, response.status, answer))
            return {}
        found: dict[str, Any] = json.loads(answer)
        return found


class Crowd:
    """Threads that each repeat something until told to stop."""

    def __init__(self, cluster: Cluster, token: str) -> None:
        self._cluster = cluster
        self._token = token
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.failures: list[Any] = []

    def repeat(self, act: Callable[[Client, int], object]) -> None:
        thread = threading.Thread(target=self._run, args=(act,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, act: Callable[[Client, int], object]) -> None:
        client = Client(self._cluster, self._token)
        number = 0
        while not self._stop.is_set():
            try:
                act(client, number)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(error)
                client = Client(self._cluster, self._token)
            number += 1
            self._stop.wait(0.02)
        self.failures.extend(client.failures)

    def finish(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


class Reader:
    """Follows a room by sync."""

    def __init__(self, room: str) -> None:
        self._room = room
        self._since = ""
        self.bodies: list[str] = []

    def sync(self, client: Client, timeout: int) -> None:
        since = self._since and f"&since={self._since}"
        answer = client.ask("GET", f"{_C}/sync?timeout={timeout}&filter={_EVERYTHING}{since}")
        self._since = answer.get("next_batch", self._since)
        timeline = answer.get("rooms", {}).get("join", {}).get(self._room, {}).get("timeline", {})
        self.bodies += [e["content"]["body"] for e in timeline.get("events", ()) if e["type"] == "m.room.message"]


def test_restarting_everything_fails_no_request(cluster: Cluster) -> None:
    name = f"rosa{secrets.token_hex(3)}"
    password = "a long password"
    user_id = cluster.register(name, password)
    login = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": name}, "password": password}
    token = str(Client(cluster).ask("POST", f"{_C}/login", login)["access_token"])
    client = Client(cluster, token)
    room = str(client.ask("POST", f"{_C}/createRoom", {})["room_id"])
    sent: list[str] = []
    reader = Reader(room)

    def send(client: Client, number: int) -> None:
        path = f"{_C}/rooms/{room}/send/m.room.message/{number}"
        if client.ask("PUT", path, {"msgtype": "m.text", "body": str(number)}):
            sent.append(str(number))

    crowd = Crowd(cluster, token)
    crowd.repeat(send)
    crowd.repeat(lambda client, _: reader.sync(client, 5000))
    crowd.repeat(lambda client, _: client.ask("GET", f"{_C}/account/whoami"))
    crowd.repeat(lambda client, _: client.ask("GET", f"{_C}/rooms/{room}/messages?dir=b"))
    crowd.repeat(lambda client, _: client.ask("POST", f"{_C}/keys/query", {"device_keys": {}}))
    crowd.repeat(lambda client, _: client.ask("POST", f"{_C}/user_directory/search", {"search_term": "x"}))
    crowd.repeat(lambda client, _: client.ask("GET", "/_matrix/media/v3/config"))
    crowd.repeat(lambda client, _: client.ask("POST", f"{_C}/user/{user_id}/filter", {}))
    before = {process: cluster.pid(process) for process in cluster.processes}
    try:
        cluster.restart()
    finally:
        crowd.finish()
    assert not crowd.failures
    assert not {process for process, pid in before.items() if cluster.pid(process) == pid}
    until = time.monotonic() + 20
    while len(reader.bodies) < len(sent) and time.monotonic() < until:
        reader.sync(client, 1000)
    assert len(sent) > 10
    assert reader.bodies == sent
