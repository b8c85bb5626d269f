"""Single sign-on by a SAML 2 identity provider, which runs as a process of its own."""

from __future__ import annotations

import base64
import html
import re
import subprocess
import sys
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import pytest_twisted

from synapse.config import ConfigError, from_options
from synapse.storage.database import Database
from tests.rest.accounts import OPTIONS, Server
from tests.rest.driver import Reply
from tests.rest.sso import BASE, CLIENT, LOGIN, Browser, fields, login_token, redeem, server_with, user_of

pytest.importorskip("saml2", reason="pysaml2 is not installed")
pytest.importorskip("xmlsec", reason="xmlsec is not installed")

from tests.support.providers import Provider, running

METADATA = "/_synapse/client/saml2/metadata.xml"
RESPONSE = "/_synapse/client/saml2/authn_response"
PAST = [
    [r'(NotOnOrAfter)="[^"]*"', r'\1="2020-01-01T00:00:00Z"'],
    [r'(NotBefore)="[^"]*"', r'\1="2019-01-01T00:00:00Z"'],
]


@pytest.fixture(scope="module")
def idp() -> Iterator[Provider]:
    with running("saml_idp") as provider:
        yield provider


def of_idp(idp: Provider) -> str:
    with urllib.request.urlopen(f"{idp.url}/metadata", timeout=10) as answer:
        return str(answer.read().decode())


class Site:
    """A server with a provider that knows it, and how that behaves."""

    def __init__(self, server: Server, idp: Provider, metadata: str) -> None:
        self.server = server
        self.idp = idp
        self.metadata = metadata

    def behave(self, **behaviour: Any) -> None:
        self.idp.set(sp_metadata=self.metadata, **behaviour)

    async def log_in(self, browser: Browser | None = None) -> Reply:
        """From the client's link to what the server says to the provider's response."""
        browser = browser or Browser(self.server)
        return await browser.post(RESPONSE, await self.form(browser))

    async def form(self, browser: Browser) -> dict[str, Any]:
        """What the provider has the browser post, after it was sent there."""
        page = await browser.log_in("saml")
        assert page.code == 200, page
        return fields(page)


async def site(database: Database, idp: Provider, sp: dict[str, Any] | None = None, **options: Any) -> Site:
    config = {"sp_config": {"metadata": {"inline": [of_idp(idp)]}, **(sp or {})}, **options}
    server = server_with(database, saml2_config=config)
    metadata = await server.call("GET", METADATA)
    assert metadata.code == 200
    made = Site(server, idp, metadata.body.decode())
    made.behave()
    return made


def shown(reply: Reply) -> str:
    """What a page of refusal says."""
    return html.unescape(re.sub(r"<[^>]*>", " ", reply.body.decode()))


# -- logging in --------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_new_user_and_the_same_again(database: Database, idp: Provider) -> None:
    here = await site(database, idp, idp_name="The University", idp_brand="uni")
    flows = (await here.server.call("GET", "/login")).json["flows"]
    described = {"id": "saml", "name": "The University", "brand": "uni"}
    assert {"type": "m.login.sso", "identity_providers": [described]} in flows
    here.behave(attributes={"uid": "alice", "displayName": "Älice", "email": ["alice@test"]})
    assert await user_of(here.server, await here.log_in()) == "@alice:test"
    assert (await here.server.call("GET", "/profile/@alice:test")).json == {"displayname": "Älice"}
    assert await user_of(here.server, await here.log_in()) == "@alice:test"
    here.behave(attributes={"uid": "Bob Builder"})
    assert await user_of(here.server, await here.log_in()) == "@bob=20builder:test"


@pytest_twisted.ensureDeferred
async def test_the_metadata_says_where_to_post(database: Database, idp: Provider) -> None:
    here = await site(database, idp)
    assert f'entityID="{BASE}{METADATA}"' in here.metadata
    assert f'Location="{BASE}{RESPONSE}"' in here.metadata
    off = server_with(database)
    assert (await off.call("GET", METADATA)).code == 404
    assert (await Browser(off).post(RESPONSE, {"SAMLResponse": "x", "RelayState": "y"})).code == 404


@pytest_twisted.ensureDeferred
async def test_the_cookie_survives_the_way_back(database: Database, idp: Provider) -> None:
    """It comes by a POST of another site, with which browsers send no cookie that is not said to be for it."""
    here = await site(database, idp)
    browser = Browser(here.server)
    await here.form(browser)
    assert any("SameSite=None" in cookie and "Secure" in cookie for cookie in browser.set_cookies)


@pytest.mark.parametrize(
    ("signs", "wants"),
    [
        (["response"], {}),
        (["response", "assertion"], {}),
        (["response", "assertion"], {"want_assertions_signed": True}),
        (["assertion"], {"want_response_signed": False, "want_assertions_signed": True}),
        (["assertion"], {"want_response_signed": False, "want_assertions_or_response_signed": True}),
        (["response"], {"want_response_signed": False, "want_assertions_or_response_signed": True}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_signed(database: Database, idp: Provider, signs: list[str], wants: dict[str, bool]) -> None:
    here = await site(database, idp, {"service": {"sp": wants}})
    here.behave(signs=signs)
    assert await user_of(here.server, await here.log_in()) == "@alice:test"


@pytest_twisted.ensureDeferred
async def test_metadata_may_be_elsewhere(database: Database, idp: Provider) -> None:
    here = await site(database, idp, {"metadata": {"remote": [{"url": f"{idp.url}/metadata"}]}})
    assert await user_of(here.server, await here.log_in()) == "@alice:test"


@pytest_twisted.ensureDeferred
async def test_a_file_may_have_the_configuration(database: Database, idp: Provider, tmp_path: Path) -> None:
    file = tmp_path / "sp_conf.py"
    file.write_text(f"CONFIG = {{'metadata': {{'inline': [{of_idp(idp)!r}]}}, 'entityid': 'urn:us'}}")
    server = server_with(database, saml2_config={"config_path": str(file)})
    here = Site(server, idp, (await server.call("GET", METADATA)).body.decode())
    assert 'entityID="urn:us"' in here.metadata
    here.behave()
    assert await user_of(server, await here.log_in()) == "@alice:test"


@pytest_twisted.ensureDeferred
async def test_assertions_may_be_encrypted(database: Database, idp: Provider, tmp_path: Path) -> None:
    key, certificate = keys(tmp_path)
    sp = {"encryption_keypairs": [{"key_file": key, "cert_file": certificate}]}
    here = await site(database, idp, sp)
    here.behave(encrypts=True)
    assert await user_of(here.server, await here.log_in()) == "@alice:test"
    key, certificate = keys(tmp_path)
    other = await site(database, idp, {"encryption_keypairs": [{"key_file": key, "cert_file": certificate}]})
    other.metadata = here.metadata
    other.behave(encrypts=True)
    assert (await other.log_in()).code == 400


@pytest_twisted.ensureDeferred
async def test_requests_may_be_signed(database: Database, idp: Provider, tmp_path: Path) -> None:
    key, certificate = keys(tmp_path)
    sp = {"key_file": key, "cert_file": certificate, "service": {"sp": {"authn_requests_signed": True}}}
    here = await site(database, idp, sp)
    reply = await Browser(here.server).get(f"{LOGIN}/saml", redirectUrl=CLIENT)
    assert {"SAMLRequest", "RelayState", "SigAlg", "Signature"} <= set(
        parse_qs(urlsplit(reply.headers["location"]).query)
    )
    assert await user_of(here.server, await here.log_in()) == "@alice:test"


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour",
    [
        {"signs": []},
        {"signs": ["assertion"]},
        {"key": "other"},
        {"method": "RsaSha1"},
        {"after": [["alice", "admin"]]},
        {"after": [[r"(SignatureValue>\s*)....", r"\1AAAA"]]},
        {"before": PAST},
        {"before": [[r'(IssueInstant)="[^"]*"', r'\1="2020-01-01T00:00:00Z"']]},
        {"before": [[r'(Conditions NotBefore)="[^"]*"', r'\1="2999-01-01T00:00:00Z"']]},
        {"before": [[r"(<[\w:]*Audience>)[^<]*", r"\1https://somebody.else"]]},
        {"before": [[r"<([\w:]*)AudienceRestriction>.*</\1AudienceRestriction>", ""]]},
        {"before": [[r'Destination="[^"]*"', 'Destination="https://somebody.else/"']]},
        {"before": [[r'Destination="[^"]*"', ""]]},
        {"before": [[r'Recipient="[^"]*"', 'Recipient="https://somebody.else/"']]},
        {"before": [[r'InResponseTo="[^"]*"', 'InResponseTo="id-something"']]},
        {"before": [[r'InResponseTo="[^"]*"', ""]]},
        {"before": [[r"(<[\w:]*Issuer[^>]*>)[^<]*", r"\1https://somebody.else"]]},
        {"before": [[r'(SubjectConfirmationData[^>]*) NotOnOrAfter="[^"]*"', r"\1"]]},
        {"before": [[r"<([\w:]*)SubjectConfirmation .*</\1SubjectConfirmation>", ""]]},
        {"before": [[r"<([\w:]*)Subject>.*</\1Subject>", ""]]},
        {"before": [[r"<([\w:]*)AuthnStatement .*</\1AuthnStatement>", ""]]},
        {"before": [[r"<([\w:]*)Conditions .*</\1Conditions>", ""]]},
        {"before": [[r"(status:)Success", r"\1Responder"]]},
        {"attributes": {"displayName": "Nobody"}},
        {"attributes": {"uid": ""}},
        {"attributes": {"uid": "x" * 300}},
    ],
    ids=str,
)
@pytest_twisted.ensureDeferred
async def test_what_proves_nothing(database: Database, idp: Provider, behaviour: dict[str, Any]) -> None:
    here = await site(database, idp)
    here.behave(**behaviour)
    refused = await here.log_in()
    assert refused.code == 400, refused
    assert "loginToken" not in refused.body.decode()
    here.behave()
    assert await user_of(here.server, await here.log_in()) == "@alice:test", "it was only that"


@pytest_twisted.ensureDeferred
async def test_unsigned_assertions_where_those_have_to_be(database: Database, idp: Provider) -> None:
    wants = {"want_response_signed": False, "want_assertions_signed": True}
    here = await site(database, idp, {"service": {"sp": wants}})
    for signs in ([], ["response"]):
        here.behave(signs=signs)
        assert (await here.log_in()).code == 400


def evil_twin(response: str) -> Iterator[str]:
    """A signed response, beside what somebody would like to be taken for it: "signature wrapping"."""
    xml = base64.b64decode(response).decode()
    found = re.search(r"<(\w+):Assertion .*</\1:Assertion>", xml, re.DOTALL)
    assert found is not None
    assertion, prefix = found[0], found[1]
    unsigned = re.sub(r"<ds:Signature\b.*?</ds:Signature>", "", assertion, flags=re.DOTALL).replace("alice", "admin")
    other = re.sub(r'ID="[^"]*"', 'ID="id-evil"', unsigned, count=1)
    yield xml.replace(assertion, other + assertion)
    yield xml.replace(assertion, assertion + other)
    yield xml.replace(assertion, unsigned + assertion)
    yield xml.replace(assertion, assertion + unsigned)
    hidden = f"<{prefix}:Advice>{assertion}</{prefix}:Advice>"
    yield xml.replace(assertion, re.sub(rf"(<{prefix}:AuthnStatement)", lambda m: hidden + m[1], other, count=1))
    yield xml.replace("alice", "ali<!-- -->ce")
    yield '<!DOCTYPE x [<!ENTITY a "admin">]>' + xml
    yield xml.replace("alice", "<![CDATA[admin]]>")


@pytest.mark.parametrize("signs", ["response", "assertion"])
@pytest_twisted.ensureDeferred
async def test_signatures_of_something_else(database: Database, idp: Provider, signs: str) -> None:
    """Whatever is moved about in a message, nobody is logged in but whom the provider has signed for."""
    wants = {"want_response_signed": signs == "response", "want_assertions_signed": signs == "assertion"}
    here = await site(database, idp, {"service": {"sp": wants}})
    here.behave(signs=[signs])
    number = 0
    while True:
        browser = Browser(here.server)
        form = await here.form(browser)
        forged = list(evil_twin(form["SAMLResponse"][0]))
        if number == len(forged):
            break
        form["SAMLResponse"] = [base64.b64encode(forged[number].encode()).decode()]
        reply = await browser.post(RESPONSE, form)
        # A comment in a text is no part of what is signed: the whole text still counts.
        assert reply.code == 400 or await user_of(here.server, reply) == "@alice:test", forged[number]
        number += 1
    taken = await here.server.accounts.users.get("@admin:test")
    assert taken is None


@pytest.mark.parametrize("text", ["", "x", "PHg+", "%%%", "A" * 100, base64.b64encode(b"<x/>").decode()])
@pytest_twisted.ensureDeferred
async def test_no_response_at_all(database: Database, idp: Provider, text: str) -> None:
    here = await site(database, idp)
    browser = Browser(here.server)
    form = await here.form(browser)
    assert (await browser.post(RESPONSE, {**form, "SAMLResponse": text})).code == 400


@pytest_twisted.ensureDeferred
async def test_a_response_serves_once_and_in_one_browser(database: Database, idp: Provider) -> None:
    here = await site(database, idp)
    browser, thief = Browser(here.server), Browser(here.server)
    form = await here.form(browser)
    assert (await thief.post(RESPONSE, form)).code == 400, "it is another browser's"
    thiefs = await here.form(thief)
    assert (await thief.post(RESPONSE, {**form, "RelayState": thiefs["RelayState"]})).code == 400
    assert await user_of(here.server, await browser.post(RESPONSE, form)) == "@alice:test"
    assert (await browser.post(RESPONSE, form)).code == 400


@pytest_twisted.ensureDeferred
async def test_it_must_not_take_too_long(database: Database, idp: Provider) -> None:
    here = await site(database, idp, saml_session_lifetime="1m")
    for seconds, code in ((61, 400), (59, 200)):
        browser = Browser(here.server)
        form = await here.form(browser)
        here.server.clock.advance(seconds)
        assert (await browser.post(RESPONSE, form)).code == code


# -- unasked -----------------------------------------------------------------------------------------------------------


async def unasked(here: Site, browser: Browser, url: str = CLIENT, **more: str) -> dict[str, Any]:
    query = urlencode({"RelayState": url, "destination": BASE + RESPONSE, **more})
    return fields(await browser.get(f"{here.idp.url}/unsolicited?{query}"))


@pytest_twisted.ensureDeferred
async def test_what_nobody_asked_for(database: Database, idp: Provider) -> None:
    here = await site(database, idp)
    browser = Browser(here.server)
    assert (await browser.post(RESPONSE, await unasked(here, browser))).code == 400


@pytest_twisted.ensureDeferred
async def test_providers_may_speak_unasked(database: Database, idp: Provider) -> None:
    here = await site(database, idp, {"service": {"sp": {"allow_unsolicited": True}}})
    browser = Browser(here.server)
    form = await unasked(here, browser)
    page = await browser.post(RESPONSE, form)
    assert page.code == 200, "the user is asked first"
    assert await user_of(here.server, page) == "@alice:test"
    assert (await browser.post(RESPONSE, form)).code == 400, "once"
    # The answer to one's request is none that nobody asked for.
    asked = await here.form(Browser(here.server))
    assert (await browser.post(RESPONSE, {**asked, "RelayState": CLIENT})).code == 400
    assert (await browser.post(RESPONSE, await unasked(here, browser, "javascript:x"))).code == 400
    assert await user_of(here.server, await here.log_in()) == "@alice:test"


@pytest_twisted.ensureDeferred
async def test_only_the_provider_that_was_asked_answers(database: Database, idp: Provider) -> None:
    """Each vouches for its own users: of the metadata's providers, the one that `idp_entityid` names."""
    with running("saml_idp") as other:
        metadata = {"inline": [of_idp(idp), of_idp(other)]}
        here = await site(database, idp, {"metadata": metadata}, idp_entityid=f"{idp.url}/metadata")
        there = Site(here.server, other, here.metadata)
        there.behave()
        browser = Browser(here.server)
        departure = await browser.get(f"{LOGIN}/saml", redirectUrl=CLIENT)
        query = parse_qs(urlsplit(departure.headers["location"]).query)
        request = zlib.decompress(base64.b64decode(query["SAMLRequest"][0]), -15).decode()
        asked = re.search(r' ID="([^"]*)"', request)
        assert asked is not None
        form = await unasked(there, browser, query["RelayState"][0], in_response_to=asked[1])
        assert (await browser.post(RESPONSE, form)).code == 400
        assert await user_of(here.server, await here.log_in()) == "@alice:test"


@pytest_twisted.ensureDeferred
async def test_which_provider_is_not_guessed(database: Database, idp: Provider) -> None:
    with running("saml_idp") as other:
        here = await site(database, idp, {"metadata": {"inline": [of_idp(idp), of_idp(other)]}})
    assert (await Browser(here.server).log_in("saml")).code == 502


# -- users -------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_who_lacks_an_attribute_stays_out(database: Database, idp: Provider) -> None:
    wanted = [
        {"attribute": "eduPersonAffiliation", "value": "staff"},
        {"attribute": "departmentNumber", "one_of": ["it", "sales"]},
    ]
    here = await site(database, idp, attribute_requirements=wanted)
    good = {"uid": "alice", "eduPersonAffiliation": ["x", "staff"], "departmentNumber": "sales"}
    for change in ({"eduPersonAffiliation": "student"}, {"departmentNumber": "x"}, {"eduPersonAffiliation": []}):
        here.behave(attributes={**good, **change})
        assert (await here.log_in()).code == 403
    here.behave(attributes=good)
    assert await user_of(here.server, await here.log_in()) == "@alice:test"


@pytest.mark.parametrize(
    ("mapping", "name", "localpart"),
    [
        ("hexencode", "John Ü", "john=20=c3=9c"),
        ("dotreplace", "John Ü", "john.."),
        ("dotreplace", "_x", "x"),
        ("hexencode", "a@b.c", "a=40b.c"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_names(database: Database, idp: Provider, mapping: str, name: str, localpart: str) -> None:
    config = {"mxid_source_attribute": "displayName", "mxid_mapping": mapping}
    here = await site(database, idp, user_mapping_provider={"config": config})
    here.behave(attributes={"uid": "1", "displayName": name})
    assert await user_of(here.server, await here.log_in()) == f"@{localpart}:test"


@pytest_twisted.ensureDeferred
async def test_names_that_are_taken(database: Database, idp: Provider) -> None:
    here = await site(database, idp)
    await here.server.register("alice")
    assert await user_of(here.server, await here.log_in()) == "@alice1:test"


@pytest_twisted.ensureDeferred
async def test_users_who_were_there_before(database: Database, idp: Provider) -> None:
    here = await site(database, idp, grandfathered_mxid_source_attribute="eduPersonPrincipalName")
    await here.server.register("old")
    here.behave(attributes={"uid": "new", "eduPersonPrincipalName": "Old"})
    assert await user_of(here.server, await here.log_in()) == "@old:test"
    here.behave(attributes={"uid": "new"})
    assert await user_of(here.server, await here.log_in()) == "@old:test", "by the identity, from then on"


@pytest_twisted.ensureDeferred
async def test_a_deactivated_user_stays_out(database: Database, idp: Provider) -> None:
    here = await site(database, idp)
    await here.log_in()
    await here.server.accounts.deactivation.deactivate("@alice:test", erase=False)
    assert (await here.log_in()).code == 403


@pytest_twisted.ensureDeferred
async def test_a_user_proves_to_be_themselves(database: Database, idp: Provider) -> None:
    here = await site(database, idp)
    token = (await redeem(here.server, login_token(await here.log_in()))).json["access_token"]
    device = (await here.server.call("GET", "/account/whoami", user=token)).json["device_id"]
    first = (await here.server.call("DELETE", f"/devices/{device}", {}, token)).json
    assert ["m.login.sso"] in [flow["stages"] for flow in first["flows"]]
    browser = Browser(here.server)
    page = await browser.get("/_matrix/client/v3/auth/m.login.sso/fallback/web", session=first["session"])
    away = await browser.post("/_matrix/client/v3/auth/m.login.sso/fallback/web", {**fields(page), "idp": "saml"})
    done = await browser.post(RESPONSE, fields(await browser.follow(away)))
    assert done.code == 200, shown(done)
    body = {"auth": {"session": first["session"]}}
    assert (await here.server.call("DELETE", f"/devices/{device}", body, token)).code == 200


# -- the configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"sp_config": {"entityid": "x"}}, "saml2_config.sp_config"),
        ({"sp_config": {"metadata": {"local": []}, "service": {"sp": {"want_response_signed": False}}}}, None),
        ({"config_path": "/nowhere.py"}, "saml2_config.config_path"),
        ({"sp_config": {"metadata": {}}}, "saml2_config.sp_config"),
        ({"user_mapping_provider": {"config": {"mxid_mapping": "rot13"}}}, None),
    ],
)
def test_mistakes(change: dict[str, Any], option: str | None) -> None:
    with pytest.raises(ConfigError) as refused:
        from_options({**OPTIONS, "public_baseurl": BASE, "saml2_config": change})
    assert option is None or refused.value.option == option


def test_it_needs_a_public_url_and_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"sp_config": {"metadata": {"local": ["x"]}}}
    with pytest.raises(ConfigError, match="public_baseurl"):
        from_options({**OPTIONS, "saml2_config": config})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install .*saml2"):
        from_options({**OPTIONS, "public_baseurl": BASE, "saml2_config": config})
    from_options({**OPTIONS, "public_baseurl": BASE, "saml2_config": {**config, "enabled": False}})


def test_pysaml2_is_loaded_only_where_it_is_needed() -> None:
    """Most servers have not installed it."""
    modules = "synapse.rest.client.sso.saml, synapse.app._sso, synapse.config.checks, synapse.rest.registry"
    program = f"import sys, {modules}; sys.exit(bool({{'saml2', 'xmlsec', 'lxml'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def keys(directory: Path) -> tuple[str, str]:
    """A new key and its certificate, PEM files."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "us")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    files = [directory / f"{certificate.serial_number}.{end}" for end in ("key", "crt")]
    files[0].write_bytes(key.private_bytes(pem, *private))
    files[1].write_bytes(certificate.public_bytes(pem))
    return str(files[0]), str(files[1])
