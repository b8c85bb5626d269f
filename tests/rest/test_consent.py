"""The policy that users agree to: its pages, and what they may not do before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
import pytest_twisted

from synapse.config.errors import ConfigError
from synapse.config.root import from_options
from synapse.http.request import RawRequest
from synapse.storage.database import Database
from synapse.storage.pool import PoolSettings
from tests.rest.accounts import OPTIONS, Server
from tests.rest.people import Person, person
from tests.support.homeserver import Cluster, cluster

PAGE = """{% extends "_page.html" %}{% block body %}
<p>Policy {{ version }} EN.</p>
{% if not public_version %}{% if has_consented %}<p>Thanks.</p>{% else %}
<form method="post" action="consent"><input type="hidden" name="v" value="{{ version }}">
<input type="hidden" name="u" value="{{ user }}"><input type="hidden" name="h" value="{{ userhmac }}">
</form>{% endif %}{% endif %}{% endblock %}"""
BASE = "https://matrix.test"


def policy(directory: Path) -> dict[str, Any]:
    for language in ("en", "de"):
        (directory / language).mkdir(exist_ok=True)
        for version in ("1.0", "2.0"):
            text = PAGE.replace("EN", language.upper())
            (directory / language / f"{version}.html").write_text(text)
    return {
        "public_baseurl": BASE,
        "form_secret": "the form secret",
        "server_notices": {"system_mxid_localpart": "notices", "system_mxid_display_name": "The Server"},
        "user_consent": {
            "template_dir": str(directory),
            "version": "2.0",
            "policy_name": "House rules",
            "server_notice_content": {"body": "Please agree at %(consent_uri)s"},
            "block_events_error": "You have to agree at %(consent_uri)s first.",
        },
    }


class House(NamedTuple):
    made: Cluster
    alice: Person

    def at_worker(self) -> Person:
        return Person(self.made["event_creator"].client, self.alice.id, self.alice.token)

    async def page(
        self, method: str, query: str, form: dict[str, str] | None = None, language: str = ""
    ) -> tuple[int, str]:
        target = "/_matrix/consent" + (f"?{query}" if query else "")
        body = b"" if form is None else urlencode(form).encode()
        request = RawRequest(method, target, {"accept-language": language}, body)
        answer = await self.made.main.hs.router.handle(request)
        assert (answer.content_type or "").startswith("text/html")
        return answer.code, answer.body.decode()

    async def agree(self, version: str = "2.0", **changed: str) -> int:
        query = await self.query()
        code, _ = await self.page("POST", "", {**query, "v": version, **changed})
        await self.made.caught_up()
        return code

    async def query(self) -> dict[str, str]:
        """What the refusal's address says."""
        code, answer = await self.alice.ask("POST", "/createRoom", {})
        assert (code, answer["errcode"]) == (403, "M_CONSENT_NOT_GIVEN")
        assert answer["error"] == f"You have to agree at {answer['consent_uri']} first."
        assert answer["consent_uri"].startswith(f"{BASE}/_matrix/consent?")
        return dict(parse_qsl(urlsplit(answer["consent_uri"]).query))


@pytest_twisted.async_yield_fixture
async def house(database_settings: PoolSettings, tmp_path: Path) -> AsyncIterator[House]:
    async with cluster(database_settings, "event_creator", **policy(tmp_path)) as made:
        yield House(made, await person(made.main, "alice"))


@pytest_twisted.ensureDeferred
async def test_who_has_not_agreed_makes_no_events_in_any_process(house: House) -> None:
    alice, worker = house.alice, house.at_worker()
    for method, path in (
        ("PUT", "/rooms/!x:test/send/a.b/1"),
        ("POST", "/rooms/!x:test/join"),
        ("POST", "/join/!x:test"),
        ("PUT", "/rooms/!x:test/state/a.b"),
        ("POST", "/rooms/!x:test/invite"),
    ):
        for process in (worker, alice):
            assert await process.refused(method, path, {}) == (403, "M_CONSENT_NOT_GIVEN")
    await alice.get("/sync")  # reading goes on
    await worker.refused("PUT", "/rooms/!x:test/send/a.b/1", {})
    with house.made["event_creator"].hs.database.counted() as counts:
        await worker.refused("PUT", "/rooms/!x:test/send/a.b/1", {})
    assert (counts.statements_read, counts.statements_written) == (0, 0), counts.sql
    assert await house.agree() == 200
    room = await alice.room()
    await worker.put(f"/rooms/{room}/send/a.b/1", {})


@pytest_twisted.ensureDeferred
async def test_the_page_shows_what_to_agree_to_and_who_has(house: House) -> None:
    query = await house.query()
    code, text = await house.page("GET", urlencode(query))
    assert code == 200
    assert "Policy 2.0 EN." in text
    assert f'value="{query["h"]}"' in text
    assert await house.agree() == 200
    code, text = await house.page("GET", urlencode(query))
    assert "Thanks." in text
    assert "<form" not in text


@pytest_twisted.ensureDeferred
async def test_the_policy_looks_like_the_other_pages(database: Database, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/_page.html").write_text("<p>Ours.</p>{% block body %}{% endblock %}")
    (tmp_path / "policy").mkdir()
    own = {"templates": {"custom_template_directory": str(tmp_path / "own")}}
    server = Server(database, **policy(tmp_path / "policy"), **own)
    answer = await server.driver.router.handle(RawRequest("GET", "/_matrix/consent"))
    assert "<p>Ours.</p>" in answer.body.decode()
    assert "Policy 2.0 EN." in answer.body.decode()


@pytest_twisted.ensureDeferred
async def test_anybody_may_read_the_policy_in_languages_that_there_are(house: House) -> None:
    for query, language, expected in (
        ("", "", "Policy 2.0 EN."),
        ("v=1.0", "", "Policy 1.0 EN."),
        ("", "fr, de-AT;q=0.8, en;q=0.5", "Policy 2.0 DE."),
        ("lang=de", "en", "Policy 2.0 DE."),
        ("lang=../en", "", "Policy 2.0 EN."),
    ):
        code, text = await house.page("GET", query, language=language)
        assert (code, expected in text) == (200, True), (query, text)
        assert "<form" not in text
    for version in ("3.0", "../en/1.0", "*", "x" * 100):
        assert (await house.page("GET", urlencode({"v": version})))[0] == 404
    policies = house.made.main.hs.conduct.consent.policies()  # as m.login.terms tells them
    assert policies == {
        "policies": {
            "privacy_policy": {
                "version": "2.0",
                "de": {"name": "House rules", "url": f"{BASE}/_matrix/consent?v=2.0&lang=de"},
                "en": {"name": "House rules", "url": f"{BASE}/_matrix/consent?v=2.0&lang=en"},
            }
        }
    }


@pytest_twisted.ensureDeferred
async def test_nobody_agrees_for_another(house: House) -> None:
    await person(house.made.main, "bob")
    for changed, code in (
        ({"u": "bob"}, 403),
        ({"h": "0" * 64}, 403),
        ({"h": "é"}, 403),
        ({"h": ""}, 400),
        ({"u": "bob\x00"}, 400),
        ({"v": "3.0"}, 404),
        ({"v": "../1.0"}, 404),
    ):
        assert await house.agree(**changed) == code, changed
    assert (await house.page("GET", "u=alice"))[0] == 400
    assert (await house.page("GET", "u=alice&h=x"))[0] == 403
    assert (await house.page("POST", "", {"x": "y" * 5000}))[0] == 400
    mac = house.made.main.hs.conduct.consent.mac("@nobody:test")
    assert (await house.page("GET", f"u=nobody&h={mac}"))[0] == 404
    assert await house.agree("1.0") == 200
    await house.query()  # the older version is not enough


@pytest_twisted.ensureDeferred
async def test_a_server_notice_asks_once_for_each_version(house: House) -> None:
    alice, hs = house.alice, house.made.main.hs
    notices = hs.conduct.consent_notices
    assert notices is not None

    async def told() -> list[str]:
        await hs.accounts.sightings.flush()
        await notices.run()
        await house.made.caught_up()
        rooms = (await alice.get("/sync"))["rooms"]
        (room,) = (*rooms.get("invite", {}), *rooms.get("join", {}))
        if room in rooms.get("invite", {}):
            await alice.post(f"/join/{room}")  # which needs no consent
        (events,) = [r["timeline"]["events"] for r in (await alice.get("/sync"))["rooms"]["join"].values()]
        return [event["content"]["body"] for event in events if event["type"] == "m.room.message"]

    await alice.get("/account/whoami")
    uri = hs.conduct.consent.uri(alice.id)
    assert await told() == [f"Please agree at {uri}"]
    # The process may have died before it could write down that she was told.
    sql = "UPDATE users SET consent_notice_sent = NULL"
    await hs.database.write("test", lambda txn: txn.execute(sql, ()))
    for _ in range(2):
        hs.accounts.sightings._told.clear()
        await alice.get("/account/whoami")
        assert len(await told()) == 1


@pytest_twisted.ensureDeferred
async def test_who_has_agreed_or_is_no_person_is_not_asked(house: House) -> None:
    hs = house.made.main.hs
    await house.agree()
    await hs.accounts.registration.register("support", await hs.accounts.passwords.hash("p"), None, user_type="support")
    login = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "support"}, "password": "p"}
    answer = await house.alice.post("/login", login)
    support = Person(house.alice.client, answer["user_id"], answer["access_token"])
    await support.room()
    await hs.accounts.sightings.flush()
    assert hs.conduct.consent_notices is not None
    await hs.conduct.consent_notices.run()
    for who in (house.alice, support):
        assert "invite" not in (await who.get("/sync")).get("rooms", {})


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"form_secret": None}, "form_secret"),
        ({"server_notices": None}, "server_notice_content"),
        ({"version": "3.0"}, "has no file en/3.0.html"),
        ({"version": "../x"}, "cannot be the name of a file"),
    ],
)
def test_what_is_missing_is_said_at_the_start(tmp_path: Path, changed: dict[str, Any], complaint: str) -> None:
    options = {**OPTIONS, **policy(tmp_path)}
    if "version" in changed:
        options["user_consent"] |= changed
    else:
        options |= changed
    with pytest.raises(ConfigError, match=complaint):
        from_options({name: value for name, value in options.items() if value is not None})


@pytest_twisted.ensureDeferred
async def test_without_a_policy_there_is_no_page(server: Server) -> None:
    answer = await server.driver.router.handle(RawRequest("GET", "/_matrix/consent"))
    assert answer.code == 404


@pytest.mark.parametrize("required", [False, True])
def test_workers_need_the_policy_where_they_register_users(tmp_path: Path, required: bool) -> None:
    options = {**OPTIONS, **policy(tmp_path), "worker_app": "synapse.app.client_reader", "worker_name": "reader"}
    options |= {"worker_replication_host": "127.0.0.1", "worker_replication_port": 1}
    options["user_consent"] |= {"template_dir": str(tmp_path / "nowhere"), "require_at_registration": required}
    if required:
        with pytest.raises(ConfigError, match=r"has no file en/2.0.html"):
            from_options(options)
    else:
        from_options(options)
