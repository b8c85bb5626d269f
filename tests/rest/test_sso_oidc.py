"""Single sign-on by OpenID Connect providers, which run as processes of their own."""

from __future__ import annotations

import html
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import pytest_twisted

from synapse.storage.database import Database, Transaction
from tests.rest.accounts import START
from tests.rest.oidc import ALICE, CALLBACK, MAPPING, Idp, provider_of, refused, server_of
from tests.rest.sso import BASE, CLIENT, LOGIN, Browser, Impatient, fields, login_token, server_with, text, user_of
from tests.support.providers import running

# -- logging in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", [{}, {"alg": "ES256"}, {"claims": {"aud": ["matrix", "other"], "azp": "matrix"}}])
@pytest_twisted.ensureDeferred
async def test_a_new_user_and_the_same_again(database: Database, idp: Idp, behaviour: Any) -> None:
    idp.set(**behaviour)
    server = server_of(database, idp)
    flows = (await server.call("GET", "/login")).json["flows"]
    assert {"type": "m.login.sso", "identity_providers": [{"id": "oidc-example", "name": "Example"}]} in flows
    browser = Browser(server)
    page = await browser.log_in("oidc-example")
    assert (page.code, text(page, "user")) == (200, "@alice:test"), page
    assert await user_of(server, page) == "@alice:test"
    (cookie,) = browser.set_cookies
    assert cookie.startswith("__Host-synapse_sso=")
    assert cookie.endswith("; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax")
    assert (await server.call("GET", "/profile/@alice:test")).json["displayname"] == "Alice"
    contacts = await server.accounts.contacts.store.of_user("@alice:test")
    assert [one.address for one in contacts] == ["alice@example.org"]
    idp.set(**behaviour, user={"preferred_username": "renamed"})
    assert await user_of(server, await Browser(server).log_in()) == "@alice:test"


@pytest_twisted.ensureDeferred
async def test_what_the_browser_is_sent_with(database: Database, idp: Idp) -> None:
    server = server_of(database, idp, additional_authorization_parameters={"acr_values": "2fa"}, scopes=["openid", "a"])
    reply = await Browser(server).get(LOGIN, redirectUrl=CLIENT)
    assert reply.code == 302
    parts = urlsplit(reply.headers["location"])
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{idp.url}/authorize"
    query = {name: value for name, (value,) in parse_qs(parts.query).items()}
    assert {name: query[name] for name in ("response_type", "client_id", "redirect_uri", "scope", "acr_values")} == {
        "response_type": "code",
        "client_id": "matrix",
        "redirect_uri": BASE + CALLBACK,
        "scope": "openid a",
        "acr_values": "2fa",
    }
    assert query["code_challenge_method"] == "S256"
    assert len({query["state"], query["nonce"], query["code_challenge"]}) == 3
    never = server_of(database, idp, pkce_method="never")
    assert "code_challenge" not in (await Browser(never).get(LOGIN, redirectUrl=CLIENT)).headers["location"]


@pytest_twisted.ensureDeferred
async def test_the_provider_is_told_who_wants_to_register(database: Database, idp: Idp) -> None:
    server = server_with(database, oidc_providers=[provider_of(idp), provider_of(idp, idp_id="second")])
    browser = Browser(server)
    asked = {"redirectUrl": CLIENT, "action": "register"}
    assert "prompt=" not in (await browser.get(LOGIN + "/oidc-second", **asked)).headers["location"]
    idp.set(metadata={"prompt_values_supported": ["create"]})
    server.clock.advance(3600)
    page = await browser.follow(await browser.get(LOGIN, **asked))
    form = {name: value[0] for name, value in fields(page).items()}
    chosen = await browser.get("/_synapse/client/pick_idp", **form, idp="oidc-second")
    assert "prompt=create" in (await browser.get(chosen.headers["location"])).headers["location"]
    assert "prompt=" not in (await browser.get(LOGIN + "/oidc-second", redirectUrl=CLIENT)).headers["location"]
    assert (await browser.get(LOGIN, redirectUrl=CLIENT, action="nothing")).code == 400
    (flow,) = [f for f in (await server.call("GET", "/login")).json["flows"] if f["type"] == "m.login.sso"]
    assert "oauth_aware_preferred" not in flow
    aware = server_with(database, oidc_providers=[provider_of(idp)], oauth={"issuer": "https://account.test/"})
    (flow,) = [f for f in (await aware.call("GET", "/login")).json["flows"] if f["type"] == "m.login.sso"]
    assert flow["oauth_aware_preferred"] is True


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
@pytest_twisted.ensureDeferred
async def test_userinfo_and_ways_to_prove_who_asks(database: Database, idp: Idp, method: str) -> None:
    server = server_of(database, idp, client_auth_method=method, user_profile_method="userinfo_endpoint")
    idp.set(user={}, userinfo={"sub": "alice-at-provider", "preferred_username": "carol"})
    assert await user_of(server, await Browser(server).log_in()) == "@carol:test"
    idp.set(userinfo={"sub": "somebody-else", "preferred_username": "alice"})
    refused(await Browser(server).log_in(), 403, "does not confirm")


@pytest_twisted.ensureDeferred
async def test_plain_oauth(database: Database, idp: Idp) -> None:
    mapping = {"config": {"subject_claim": "id", "localpart_template": "{{ user.login }}"}}
    server = server_of(database, idp, scopes=["read:user"], user_mapping_provider=mapping)
    idp.set(user={"id": 12345, "login": "Octo.Cat"})
    assert await user_of(server, await Browser(server).log_in()) == "@octo.cat:test"
    idp.set(user={"id": 12345, "login": "other"})
    assert await user_of(server, await Browser(server).log_in()) == "@octo.cat:test"
    idp.set(user={"login": "octo.cat"})
    refused(await Browser(server).log_in(), 400, "does not say who you are")


@pytest_twisted.ensureDeferred
async def test_without_discovery_and_with_a_shared_secret(database: Database, idp: Idp) -> None:
    server = server_of(
        database,
        idp,
        discover=False,
        authorization_endpoint=f"{idp.url}/authorize",
        token_endpoint=f"{idp.url}/token",
        id_token_signing_alg_values_supported=["HS256"],
    )
    idp.set(alg="HS256")
    assert await user_of(server, await Browser(server).log_in()) == "@alice:test"
    assert {asked["path"] for asked in idp.process.asked()} == {"/authorize", "/token"}
    idp.set(alg="RS256")
    refused(await Browser(server).log_in(), 403, "does not confirm")


@pytest_twisted.ensureDeferred
async def test_keys_are_looked_up_again_when_they_have_changed(database: Database, idp: Idp) -> None:
    server = server_of(database, idp)
    await user_of(server, await Browser(server).log_in())
    idp.set(key="new", now=START + 11)
    refused(await Browser(server).log_in(), 403, "does not confirm")  # asked for a moment ago
    server.clock.advance(11)
    assert await user_of(server, await Browser(server).log_in()) == "@alice:test"
    assert [asked["path"] for asked in idp.process.asked()].count("/jwks") == 1


# -- refusals --------------------------------------------------------------------------------------------------------


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"claims": {"nonce": "another"}}, "'nonce'"),
    ({"claims": {"nonce": None}}, "'nonce'"),
    ({"claims": {"iss": "https://evil.example"}}, "'iss'"),
    ({"claims": {"iss": None}}, "'iss'"),
    ({"claims": {"aud": "another"}}, "'aud'"),
    ({"claims": {"aud": ["another"]}}, "'aud'"),
    ({"claims": {"aud": None}}, "'aud'"),
    ({"claims": {"aud": ["matrix", "other"]}}, "'azp'"),
    ({"claims": {"azp": "another"}}, "'azp'"),
    ({"claims": {"exp": START - 121}}, "expired"),
    ({"claims": {"exp": None}}, "'exp'"),
    ({"claims": {"exp": "soon"}}, "'exp'"),
    ({"claims": {"iat": START + 121}}, "in the future"),
    ({"claims": {"nbf": START + 121}}, "not yet valid"),
    ({"claims": {"at_hash": "AAAA"}}, "'at_hash'"),
    ({"claims": {"sub": None}}, "'sub'"),
    ({"claims": {"sub": 5}}, "'sub'"),
    ({"alg": "none"}, "signed by none"),
    ({"alg": "HS256"}, "signed by HS256"),
    ({"alg": "confused"}, "signed by HS256"),
    ({"key": "other"}, "no key"),
    ({"iss": "https://evil.example"}, "another issuer"),
    ({"iss": None}, "another issuer"),
    ({"token": [400, {"error": "invalid_grant"}]}, "invalid_grant"),
    ({"token": [200, {"access_token": 5}]}, "takes no code"),
    ({"token": [200, {"access_token": "a", "id_token": "a.b.c"}]}, "no signed token"),
    ({"token": [200, {"access_token": "a", "id_token": "é"}]}, "no token"),
    ({"token": [200, {"access_token": "a", "id_token": "x" * 70_000}]}, "no token"),
]


@pytest_twisted.ensureDeferred
async def test_who_is_not_believed(database: Database, idp: Idp, caplog: pytest.LogCaptureFixture) -> None:
    """The log says why, the page does not."""
    server = server_of(database, idp)
    for behaviour, reason in WRONG:
        idp.set(**behaviour)
        caplog.clear()
        page = await Browser(server).log_in()
        assert (behaviour, reason, reason in caplog.text) == (behaviour, reason, True), caplog.text
        assert (behaviour, page.code, "does not confirm" in text(page, "error")) == (behaviour, 403, True)
        assert b"loginToken" not in page.body
    idp.set()
    assert await user_of(server, await Browser(server).log_in()) == "@alice:test"


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ({"down": True}, "cannot be reached"),
        ({"metadata": {"issuer": 5}}, "does not answer as it should"),
        ({"metadata": {"token_endpoint": None}}, "does not answer as it should"),
        ({"metadata": {"authorization_endpoint": "javascript:alert(1)"}}, "does not answer as it should"),
        ({"metadata": {"jwks_uri": "file:///etc/passwd"}}, "does not answer as it should"),
        ({"token": [500, {}]}, "cannot be reached"),
        ({"token": [200, {"access_token": "a"}]}, "does not answer as it should"),
    ],
    ids=str,
)
@pytest_twisted.ensureDeferred
async def test_a_provider_that_is_out_of_order(database: Database, idp: Idp, behaviour: Any, words: str) -> None:
    server = server_of(database, idp)
    idp.set(**behaviour)
    refused(await Browser(server).log_in(), 502, words)
    idp.set()  # and once it is in order again, nobody has to restart anything
    assert await user_of(server, await Browser(server).log_in()) == "@alice:test"


@pytest_twisted.ensureDeferred
async def test_a_provider_that_is_not_there(database: Database) -> None:
    with running("oidc_server") as gone:
        server = server_of(database, gone, reactor=Impatient())
        browser = Browser(server)
        reply = await browser.get(LOGIN, redirectUrl=CLIENT)
        back = await browser.get(reply.headers["location"])
    refused(await browser.get(back.headers["location"]), 502, "cannot be reached")
    refused(await browser.get(LOGIN + "/oidc-nobody", redirectUrl=CLIENT), 404, "no such identity provider")


@pytest_twisted.ensureDeferred
async def test_errors_of_the_provider(database: Database, idp: Idp) -> None:
    server = server_of(database, idp)
    said = {"error": "access_denied", "error_description": "<b>No</b> " + "x" * 5000}
    idp.set(authorize=said)
    page = await Browser(server).log_in()
    refused(page, 403, "has refused: access_denied: <b>No</b>")
    assert b"<b>No" not in page.body
    # Nobody's words are shown whom we did not ask.
    other = await Browser(server).get(CALLBACK, state="x", **said)
    assert (other.code, b"access_denied" in other.body) == (400, False)


@pytest_twisted.ensureDeferred
async def test_what_comes_back_twice_or_in_another_browser(database: Database, idp: Idp) -> None:
    server = server_of(database, idp)
    browser, other = Browser(server), Browser(server)
    await other.get(LOGIN, redirectUrl=CLIENT)  # it has a cookie of its own
    back = (await browser.get((await browser.get(LOGIN, redirectUrl=CLIENT)).headers["location"])).headers["location"]
    refused(await other.get(back), 400, "begun in another browser")
    refused(await Browser(server).get(back), 400, "begun in another browser")
    assert (await browser.get(back)).code == 200
    refused(await browser.get(back), 400, "has been completed already")
    # The code is no good either, under a state of its own.
    code = parse_qs(urlsplit(back).query)["code"][0]
    away = parse_qs(urlsplit((await browser.get(LOGIN, redirectUrl=CLIENT)).headers["location"]).query)
    query = {"state": away["state"][0], "code": code, "iss": idp.url}
    refused(await browser.get(f"{CALLBACK}?{urlencode(query)}"), 403, "does not confirm")


@pytest_twisted.ensureDeferred
async def test_log_ins_that_take_too_long(database: Database, idp: Idp) -> None:
    server = server_of(database, idp)
    browser = Browser(server)
    back = (await browser.get((await browser.get(LOGIN, redirectUrl=CLIENT)).headers["location"])).headers["location"]
    server.clock.advance(15 * 60)
    refused(await browser.get(back), 400, "too long")


@pytest_twisted.ensureDeferred
async def test_another_codes_of_the_same_user_are_bound_to_the_verifier(database: Database, idp: Idp) -> None:
    """A code that was stolen from another log-in is of no use in one's own: its PKCE verifier is another."""
    server = server_of(database, idp)
    victim, thief = Browser(server), Browser(server)
    sent = await victim.get(LOGIN, redirectUrl=CLIENT)
    stolen = parse_qs(urlsplit((await victim.get(sent.headers["location"])).headers["location"]).query)["code"][0]
    own = parse_qs(urlsplit((await thief.get(LOGIN, redirectUrl=CLIENT)).headers["location"]).query)["state"][0]
    query = {"state": own, "code": stolen, "iss": idp.url}
    refused(await thief.get(f"{CALLBACK}?{urlencode(query)}"), 403, "does not confirm")


@pytest_twisted.ensureDeferred
async def test_subjects_that_are_nobody(database: Database, idp: Idp) -> None:
    """Whatever would have to be changed to be stored could become another's."""
    mapping = {"config": {**MAPPING, "subject_claim": "name"}}
    server = server_of(database, idp, user_mapping_provider=mapping)
    for subject in ("", " alice", "alice\x00", "x" * 256, True, ["alice"], {"a": 1}, None):
        idp.set(user={**ALICE, "name": subject})
        page = await Browser(server).log_in()
        assert (subject, page.code, "does not say who" in text(page, "error")) == (subject, 400, True)


@pytest_twisted.ensureDeferred
async def test_keys_that_are_known_do_while_the_provider_is_down(database: Database, idp: Idp) -> None:
    server = server_of(database, idp)
    await user_of(server, await Browser(server).log_in())
    server.clock.advance(3600)
    idp.set(now=START + 3600, no_keys=True)
    assert await user_of(server, await Browser(server).log_in()) == "@alice:test"


@pytest_twisted.ensureDeferred
async def test_cookies_that_are_not_ours(database: Database, idp: Idp) -> None:
    server = server_of(database, idp)
    for cookie in ("", "x", "x" * 500, "a b", '"quoted"', "é"):
        browser = Browser(server)
        browser.cookies = {"__Host-synapse_sso": cookie, "other": "1"}
        assert await user_of(server, await browser.log_in()) == "@alice:test"
        assert browser.cookies["__Host-synapse_sso"] != cookie


@pytest_twisted.ensureDeferred
async def test_requirements(database: Database, idp: Idp) -> None:
    requirements = [{"attribute": "groups", "one_of": ["staff", "boss"]}, {"attribute": "active", "value": "yes"}]
    server = server_of(database, idp, attribute_requirements=requirements)
    for claims in ({}, {"groups": ["staff"]}, {"groups": "guests", "active": "yes"}, {"groups": [], "active": "yes"}):
        idp.set(user={**ALICE, **claims})
        refused(await Browser(server).log_in(), 403, "not among those")
    idp.set(user={**ALICE, "groups": ["x", "boss"], "active": "yes"})
    assert await user_of(server, await Browser(server).log_in()) == "@alice:test"


# -- names -----------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_names_that_are_taken(database: Database, idp: Idp) -> None:
    server = server_of(database, idp)
    await server.register("alice")
    await server.register("alice1")
    assert await user_of(server, await Browser(server).log_in()) == "@alice2:test"
    kept = server_of(database, idp, allow_existing_users=True, idp_id="other")
    assert await user_of(kept, await Browser(kept).log_in()) == "@alice:test"
    idp.set(user={**ALICE, "sub": "another"})  # the account belongs to the first, and to anybody of that name
    assert await user_of(kept, await Browser(kept).log_in()) == "@alice:test"


@pytest_twisted.ensureDeferred
async def test_choosing_a_name(database: Database, idp: Idp) -> None:
    mapping = {"config": {**MAPPING, "confirm_localpart": True}}
    server = server_of(database, idp, user_mapping_provider=mapping)
    await server.register("taken")
    browser = Browser(server)
    page = await browser.log_in()
    form = fields(page)
    assert (form["username"], form["use_email"]) == (["alice"], ["alice@example.org"])
    session = form["session"][0]
    path = "/_synapse/client/pick_username"
    check = await browser.get(f"{path}/check", username="taken", session=session)
    assert (check.json["available"], "taken" in check.json["error"]) == (False, True)
    assert (await browser.get(f"{path}/check", username="bob", session=session)).json == {"available": True}
    # Nobody else sees it, and what is wrong can be put right.
    assert (await Browser(server).get(f"{path}/account_details", session=session)).code == 400
    assert (await Browser(server).post(f"{path}/account_details", form)).code == 400
    for wrong in ("taken", "", "Not A Name", "x" * 300):
        again = await browser.post(f"{path}/account_details", {**form, "username": wrong})
        assert (again.code, bool(text(again, "problem"))) == (400, True)
    chosen = {"session": session, "username": "Bob", "use_email": "evil@example.org", "use_display_name": "true"}
    done = await browser.post(f"{path}/account_details", chosen)
    assert (done.code, text(done, "user")) == (200, "@bob:test")
    assert await user_of(server, done) == "@bob:test"
    assert await server.accounts.contacts.store.of_user("@bob:test") == []
    assert (await server.call("GET", "/profile/@bob:test")).json["displayname"] == "Alice"
    assert (await browser.post(f"{path}/account_details", {**chosen, "username": "eve"})).code == 400
    assert await user_of(server, await Browser(server).log_in()) == "@bob:test"


@pytest_twisted.ensureDeferred
async def test_no_name_to_begin_with(database: Database, idp: Idp) -> None:
    server = server_of(database, idp, enable_registration=True)
    idp.set(user={"name": "\x00 <script>"})
    page = await Browser(server).log_in()
    assert (page.code, fields(page)["username"]) == (200, [""])
    assert b"<script>" not in page.body.replace(b"<script>\xe2", b"")


@pytest_twisted.ensureDeferred
async def test_several_providers_to_choose_from(database: Database, idp: Idp) -> None:
    shown = {"idp_name": "Second <3", "idp_brand": "x", "idp_icon": "mxc://a/b"}
    others = [provider_of(idp), provider_of(idp, idp_id="second", **shown)]
    server = server_with(database, oidc_providers=others)
    browser = Browser(server)
    page = await browser.log_in()
    assert (page.code, text(page, "idp-oidc-second")) == (200, "Second <3")
    (flow,) = [f for f in (await server.call("GET", "/login")).json["flows"] if f["type"] == "m.login.sso"]
    second = {"id": "oidc-second", "name": "Second <3", "brand": "x", "icon": "mxc://a/b"}
    assert flow["identity_providers"][1] == second
    chosen = await browser.follow(await browser.get("/_synapse/client/pick_idp", redirectUrl=CLIENT, idp="oidc-second"))
    assert await user_of(server, chosen) == "@alice:test"
    ids = await server.sso.users.providers_of("@alice:test")
    assert ids == ["oidc-second"]


@pytest_twisted.ensureDeferred
async def test_profiles_that_follow_the_provider(database: Database, idp: Idp) -> None:
    server = server_of(database, idp, sso={"update_profile_information": True})
    await Browser(server).log_in()
    idp.set(user={**ALICE, "name": "Alice B."})
    await Browser(server).log_in()
    assert (await server.call("GET", "/profile/@alice:test")).json["displayname"] == "Alice B."
    assert server.propagated == ["@alice:test"]


NOWHERE = (
    *("javascript:alert(1)", "JavaScript:alert(1)//", "data:text/html,x", "vbscript:x", "file:///etc/passwd"),
    *("", "/relative", "//evil.test/", "https://", "https://user:pw@evil.test/"),
    *("https://x\\@evil.test", "java\tscript:x"),
    *("https://[::1", "https://x:99999999/", "blob:https://x", "https://" + "x" * 5000, 'https://x/"onclick="'),
)


@pytest_twisted.ensureDeferred
async def test_where_nobody_is_sent(database: Database, idp: Idp) -> None:
    server = server_of(database, idp)
    for url in NOWHERE:
        for path in (LOGIN, "/_synapse/client/pick_idp"):
            page = await Browser(server).get(path, redirectUrl=url)
            assert (url, page.code, "redirectUrl" in text(page, "error")) == (url, 400, True)


@pytest_twisted.ensureDeferred
async def test_the_servers_public_name_is_where_cookies_are_set(database: Database, idp: Idp) -> None:
    server = server_of(database, idp)
    reply = await server.driver.call("GET", LOGIN, query={"redirectUrl": CLIENT}, headers={"host": "other.test"})
    assert reply.code == 302
    assert reply.headers["location"].startswith(f"{BASE}{LOGIN}?redirectUrl=https")
    # A proxy may hide by which name it came: then once must do.
    again = reply.headers["location"].removeprefix(BASE)
    there = await server.driver.call("GET", again, headers={"host": "other.test"})
    assert there.headers["location"].startswith(f"{idp.url}/authorize")


@pytest_twisted.ensureDeferred
async def test_login_tokens_say_where_they_come_from(database: Database, idp: Idp) -> None:
    server = server_of(database, idp)
    found = await server.sso.login_tokens.redeem(login_token(await Browser(server).log_in()))
    assert (found.user_id, found.auth_provider, found.provider_session) == (
        "@alice:test",
        "oidc-example",
        "session-at-provider",
    )


@pytest_twisted.ensureDeferred
async def test_terms_that_new_users_agree_to(database: Database, idp: Idp, tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "1.0.html").write_text("<h1>The terms</h1>")
    consent = {"template_dir": str(tmp_path), "version": "1.0", "require_at_registration": True}
    server = server_with(
        database,
        oidc_providers=[provider_of(idp)],
        user_consent=consent,
        form_secret="secret",
        enable_registration=None,
    )
    browser = Browser(server)
    page = await browser.log_in()
    assert (page.code, text(page, "user")) == (200, "@alice:test")
    link = re.search(r'href="([^"]*)" id="terms"', page.body.decode())
    assert link is not None
    assert b"The terms" in (await browser.get(html.unescape(link[1]))).body
    form = fields(page)
    assert form["accepted_version"] == ["1.0"]
    path = "/_synapse/client/new_user_consent"
    for wrong in ({}, {"accepted_version": "0.9"}):
        again = await browser.post(path, {"session": form["session"], **wrong})
        assert (again.code, "Without agreeing" in text(again, "problem")) == (400, True)
    assert (await Browser(server).post(path, form)).code == 400
    assert await user_of(server, await browser.post(path, form)) == "@alice:test"
    (version,) = await database.read("test", _agreed)
    assert version == "1.0"
    assert await user_of(server, await Browser(server).log_in()) == "@alice:test"  # once is enough


def _agreed(txn: Transaction) -> list[str]:
    txn.execute("SELECT consent_version FROM users WHERE user_id = '@alice:test'")
    return [value for (value,) in txn.rows()]


@pytest_twisted.ensureDeferred
async def test_pages_of_the_administrators_own(database: Database, idp: Idp, tmp_path: Path) -> None:
    (tmp_path / "sso_error.html").write_text(
        "Ours: {{ error }}: <i id='error'>{{ error_description }}</i> {{ server_name }}"
    )
    (tmp_path / "_page.html").write_text("<!DOCTYPE html>Ours {% block body %}{% endblock %}")
    given = {"custom_template_directory": str(tmp_path)}
    server = server_with(database, oidc_providers=[provider_of(idp)], templates=given)
    page = await Browser(server).get(LOGIN, redirectUrl="javascript:1")
    assert page.body.startswith(b"Ours: Logging in has failed: <i id='error'>The &#39;redirectUrl&#39;")
    assert page.body.endswith(b" test")
    assert (await Browser(server).log_in()).body.startswith(b"<!DOCTYPE html>Ours <h1>Your account is ready")


# -- confirming ------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_confirming_by_single_sign_on(database: Database, idp: Idp) -> None:
    server = server_of(database, idp)
    body = {"type": "m.login.token", "token": login_token(await Browser(server).log_in()), "device_id": "PHONE"}
    token = (await server.call("POST", "/login", body)).json["access_token"]
    asked = await server.call("DELETE", "/devices/PHONE", {}, token)
    assert asked.json["flows"] == [{"stages": ["m.login.sso"]}]
    auth = {"session": asked.json["session"]}
    path = "/_matrix/client/v3/auth/m.login.sso/fallback/web"
    browser = Browser(server)
    form = {**fields(await browser.get(path, **auth)), "idp": "oidc-example"}
    # What one browser has confirmed at the provider does not count when another brings it.
    back = await browser.get((await browser.post(path, form)).headers["location"])
    refused(await Browser(server).get(back.headers["location"]), 400, "begun in another browser")
    assert (await server.call("DELETE", "/devices/PHONE", {"auth": auth}, token)).code == 401
    done = await browser.get(back.headers["location"])
    assert (done.code, text(done, "done")) == (200, "Thank you")
    assert (await server.call("DELETE", "/devices/PHONE", {"auth": auth}, token)).code == 200
    for gone in (auth["session"], "nonsense", "", "\x00"):
        assert (await browser.get(path, session=gone)).code == 400


# -- another provider ------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_provider_that_others_wrote(database: Database) -> None:
    with running("mock_server") as provider:
        mapping = {"config": {"localpart_template": "{{ user.email | localpart_from_email }}"}}
        scopes = ["openid", "profile", "email"]
        options = {"scopes": scopes, "user_mapping_provider": mapping, "user_profile_method": "userinfo_endpoint"}
        server = server_of(database, provider, pkce_method="always", **options)
        server.clock.advance(time.time() - server.clock.seconds())  # the provider lives in our time
        browser = Browser(server)
        page = await browser.log_in()
        assert page.code == 200, page
        back = await browser.post(browser.url, {"sub": "alice@example.org"})
        assert await user_of(server, await browser.follow(back)) == "@alice:test"
