"""Where clients may want people to be sent, and the URL with the token."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.api.errors import MatrixError
from synapse.handlers.sso.redirects import check_redirect_url, is_trusted, shown_url, with_login_token


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://client.test", "https://client.test?loginToken=T"),
        ("https://client.test/", "https://client.test/?loginToken=T"),
        ("https://client.test/?a=b&c", "https://client.test/?a=b&c&loginToken=T"),
        ("https://client.test/?p=http%3A%2F%2Fs#/login", "https://client.test/?p=http%3A%2F%2Fs&loginToken=T#/login"),
        ("https://client.test/#?loginToken=x", "https://client.test/?loginToken=T#?loginToken=x"),
        ("https://c.test/?loginToken=old&a=1&loginToken=older", "https://c.test/?a=1&loginToken=T"),
        ("https://c.test/?login%54oken=old&loginToken", "https://c.test/?loginToken=T"),
        ("http://localhost:8080/x?y=%20", "http://localhost:8080/x?y=%20&loginToken=T"),
        ("im.app:", "im.app:?loginToken=T"),
        ("im.app://", "im.app://?loginToken=T"),
        ("im.app:///path", "im.app:///path?loginToken=T"),
        ("im.app:/path?x=1#y", "im.app:/path?x=1&loginToken=T#y"),
        ("element://connect", "element://connect?loginToken=T"),
        ("https://client.test/é", "https://client.test/%C3%A9?loginToken=T"),
    ],
)
def test_the_token_is_added(url: str, expected: str) -> None:
    assert with_login_token(check_redirect_url(url), "T") == expected


@given(st.text(st.characters(codec="ascii", exclude_characters="#", exclude_categories=["Cc"]), max_size=60), st.text())
def test_whatever_the_query_is_there_is_one_token_and_it_is_ours(query: str, token: str) -> None:
    url = f"https://client.test/?{query}"
    try:
        checked = check_redirect_url(url)
    except MatrixError:
        return
    made = urlsplit(with_login_token(checked, token.encode("utf-8", "replace").decode()))
    assert (made.scheme, made.netloc, made.path) == ("https", "client.test", "/")
    fields = parse_qsl(made.query, keep_blank_values=True)
    tokens = [value for name, value in fields if name == "loginToken"]
    assert tokens == [token.encode("utf-8", "replace").decode()]
    others = [one for one in parse_qsl(urlsplit(checked).query, keep_blank_values=True) if one[0] != "loginToken"]
    assert [one for one in fields if one[0] != "loginToken"] == others


@given(st.text(max_size=80))
def test_what_is_taken_may_stand_in_a_header(text: str) -> None:
    try:
        checked = check_redirect_url(text)
    except MatrixError:
        return
    assert checked.isascii()
    assert checked.isprintable()
    assert " " not in checked
    assert not checked.lower().startswith(("javascript:", "data:", "vbscript:"))


@pytest.mark.parametrize(
    ("url", "trusted", "is_so"),
    [
        ("https://app.test/", ["https://app.test/"], True),
        ("https://app.test/x?y#z", ["https://app.test/"], True),
        ("https://app.test", ["https://app.test/"], False),
        ("https://app.test/x", ["https://app.test"], True),
        ("https://app.test.evil.net/", ["https://app.test"], False),
        ("https://app.test:8443/", ["https://app.test"], False),
        ("https://app.test@evil.net/", ["https://app.test"], False),
        ("http://app.test/", ["https://app.test/"], False),
        ("https://app.test/staging2/", ["https://app.test/staging"], False),
        ("https://other.test/", ["https://app.test/", "https://other.test/"], True),
        ("im.app:/x", ["im.app:"], True),
        ("https://anything.test/", [""], False),
        ("https://anything.test/", [], False),
    ],
)
def test_who_is_trusted(url: str, trusted: list[str], is_so: bool) -> None:
    assert is_trusted(url, trusted) is is_so


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://client.test:8080/path?secret=1#x", "https://client.test:8080/path"),
        ("im.app:/x?secret=1", "im.app:"),
        ("element://connect/x", "element://connect"),
    ],
)
def test_what_is_shown_is_where_it_leads(url: str, shown: str) -> None:
    assert shown_url(url) == shown
