"""The one form of e-mail addresses and phone numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.api.errors import MatrixError
from synapse.api.threepids import canonical, canonical_msisdn

BAD_EMAILS = [
    *(
        "",
        "a",
        "@",
        "a@",
        "@b",
        "a@b@c",
        "a b@c",
        "a@b c",
        "x <a@b.c>",
        "<a@b.c>",
        "mailto:a@b.c",
        "a@-b.de",
        "a@b-.de",
    ),
    *("a@b..c", "a@.b", "a@b.", "a@[1.2.3.4]", '"a b"@c.de', "a,b@c.de", "a@c.de\r\nBcc: d@e.fr", "a\x00@b.c"),
    *("\ud800@b.c", "a@b.c\n\nx", "a" * 255 + "@b.c", "a(b)@c.de", "a@b.c,d@e.fr"),
]
BAD_NUMBERS = [
    "+447700",
    "",
    "+",
    "12",
    "1" * 40,
    "+44 7700 900 00a",
    "٤٤٧٧٠٠٩٠٠٠٠١",
    "447700900001;ext=5",
    "0000000000",
    "+999123456789",
]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("bob@Example.com", "bob@example.com"),
        ("Strauß@Example.com", "strauss@example.com"),
        (" a+b.c@sub-domain.example.org ", "a+b.c@sub-domain.example.org"),
        ("root@localhost", "root@localhost"),
        ("ÜBER@münchen.example", "über@münchen.example"),
        ("\u212a@example.org", "k@example.org"),
    ],
)
def test_addresses_are_case_folded(address: str, expected: str) -> None:
    assert canonical("email", address) == expected


@pytest.mark.parametrize("address", BAD_EMAILS)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(MatrixError, match="M_INVALID_PARAM"):
        canonical("email", address)


@given(st.text(max_size=60))
def test_an_address_has_one_form(text: str) -> None:
    try:
        once = canonical("email", text)
    except MatrixError:
        return
    assert canonical("email", once) == once
    assert not set(once) & set(' \r\n<>,;"()')


@pytest.mark.parametrize(
    ("number", "country", "expected"),
    [
        ("07700900001", "GB", "447700900001"),
        ("07700 900-001", "gb", "447700900001"),
        ("+447700900001", "DE", "447700900001"),
        ("00447700900001", "DE", "447700900001"),
        ("+44 7700 900001", None, "447700900001"),
        ("447700900001", None, "447700900001"),
        ("(650) 253-0000", "US", "16502530000"),
    ],
)
def test_numbers_begin_with_their_country(number: str, country: str | None, expected: str) -> None:
    assert canonical_msisdn(number, country) == expected
    assert canonical("msisdn", expected) == expected


@pytest.mark.parametrize("number", BAD_NUMBERS)
def test_what_is_no_number(number: str) -> None:
    with pytest.raises(MatrixError, match="M_INVALID_PARAM"):
        canonical("msisdn", number)


@pytest.mark.parametrize("country", ["", "XX", "G", "GBR", "\x00\x00", "ÄÖ", "001"])
def test_what_is_no_country(country: str) -> None:
    with pytest.raises(MatrixError, match="M_INVALID_PARAM"):
        canonical_msisdn("07700900001", country)


def test_other_media_are_not_known() -> None:
    with pytest.raises(MatrixError, match="M_THREEPID_MEDIUM_NOT_SUPPORTED"):
        canonical("pigeon", "a@b.c")
