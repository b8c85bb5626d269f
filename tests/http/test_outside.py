"""Requests to the world outside: who is believed, which addresses are left out, and what answers may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from synapse.config.sections import PRIVATE_NETWORKS
from synapse.http.addresses import AddressFilter
from synapse.http.client import AnswerLate, AnswerLost, NotSent
from synapse.http.outside import OutsideClient, Trust
from tests.support.deferreds import started
from tests.support.elsewhere import Asked, Certificates, Told, elsewhere
from tests.support.reactor import HeldReactor, real_reactor

NOTHING_BLOCKED = AddressFilter(())


def client(trust: Trust, addresses: AddressFilter = NOTHING_BLOCKED) -> OutsideClient:
    return OutsideClient(real_reactor(), addresses, trust)


async def echo(asked: Asked) -> Told:
    return Told(200, {"method": asked.method, "path": asked.path, "body": asked.body.decode()}, {"X-Kind": "echo"})


@pytest_twisted.ensureDeferred
async def test_a_request_and_its_answer(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    async with elsewhere(certificates, echo) as server:
        outside = client(Trust(authorities=(certificates.path,)))
        url = f"https://{server.name}/a?b=c"
        for _ in range(2):
            answer = await outside.request("POST", url, b"hello", (("Authorization", "Bearer x"),))
            assert (answer.code, answer.headers["x-kind"]) == (200, "echo")
            assert answer.body == b'{"method":"POST","path":"/a","body":"hello"}'
        assert server.asked[0].query == "b=c"
        assert server.asked[0].headers["authorization"] == "Bearer x"
        assert "accept-encoding" not in server.asked[0].headers
        await outside.close()


@pytest_twisted.ensureDeferred
async def test_only_who_proves_to_be_the_host_is_believed(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    async with elsewhere(certificates, echo) as server:
        with pytest.raises(AnswerLost):
            await client(Trust()).request("GET", f"https://{server.name}/")
        trusting = Trust(authorities=(certificates.path,))
        with pytest.raises(AnswerLost):  # the certificate is for localhost
            await client(trusting).request("GET", f"https://{server.name.replace('localhost', '127.0.0.1')}/")
        assert server.asked == []
        port = server.name.partition(":")[2]
        outside = client(Trust(lambda host: host != "127.0.0.1", (certificates.path,)))
        for host in ("localhost", "127.0.0.1"):
            assert (await outside.request("GET", f"https://{host}:{port}/")).code == 200
        unbelieving = client(Trust(verify=False))
        assert (await unbelieving.request("GET", f"https://127.0.0.1:{port}/")).code == 200
        await outside.close()
        await unbelieving.close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]"])
@pytest_twisted.ensureDeferred
async def test_private_addresses_are_not_connected_to(tmp_path: Path, host: str) -> None:
    certificates = Certificates(tmp_path)
    async with elsewhere(certificates, echo) as server:
        port = server.name.partition(":")[2]
        outside = client(Trust(verify=False), AddressFilter(PRIVATE_NETWORKS))
        with pytest.raises(NotSent):
            await outside.request("GET", f"https://{host}:{port}/")
        allowed = client(Trust(verify=False), AddressFilter(PRIVATE_NETWORKS, ["127.0.0.1/32"]))
        if host == "127.0.0.1":
            assert (await allowed.request("GET", f"https://{host}:{port}/")).code == 200
        assert len(server.asked) == (host == "127.0.0.1")
        await allowed.close()


@pytest_twisted.ensureDeferred
async def test_answers_have_a_size_and_a_time(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    arrived: Deferred[None] = Deferred()
    never: Deferred[None] = Deferred()

    async def answer(asked: Asked) -> Told:
        if asked.path == "/late":
            arrived.callback(None)
            await never
        return Told(302, b"x" * 5000, {"Location": "/elsewhere"})

    async with elsewhere(certificates, answer) as server:
        outside = client(Trust(verify=False))
        url = f"https://{server.name}"
        assert (await outside.request("GET", url, max_answer=5000)).code == 302, "redirects are not followed"
        with pytest.raises(AnswerLost):
            await outside.request("GET", url, max_answer=4999)
        clock = HeldReactor()
        impatient = OutsideClient(clock, NOTHING_BLOCKED, Trust(verify=False))
        asked = started(impatient.request("GET", f"{url}/late", within=20))
        await arrived
        clock.advance(20)
        with pytest.raises(AnswerLate):
            await asked
        assert [asked.path for asked in server.asked] == ["/", "/", "/late"]
        await outside.close()
    with pytest.raises(NotSent):
        await outside.request("GET", url)
    with pytest.raises(NotSent):
        await outside.request("GET", "https://no such host/")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True),
        ("2a00:1450::1", True),
        ("10.1.2.3", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("::", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:0a00:0001::1", False),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::808:808", True),
        ("nonsense", False),
    ],
)
def test_addresses_that_are_not_public(address: str, expected: Any) -> None:
    assert AddressFilter(PRIVATE_NETWORKS).allows(address) is expected


def test_exceptions_to_what_is_blocked() -> None:
    addresses = AddressFilter(PRIVATE_NETWORKS, ["10.0.0.0/24", "fd00::/64"])
    assert [addresses.allows(a) for a in ("10.0.0.7", "10.0.1.7", "::ffff:10.0.0.7", "fd00::2")] == [
        *(True, False, True, True)
    ]
