"""The header of signed requests: the grammar, and what older servers make of it."""

from __future__ import annotations

import pytest

from synapse.api.errors import MatrixError
from synapse.federation.x_matrix import Credentials, parse
from synapse.http.wire import parse_request

GOOD = Credentials("a.org", "b.org:8448", {"ed25519:k": "s/+"})


@pytest.mark.parametrize(
    "header",
    [
        'X-Matrix origin="a.org",destination="b.org:8448",key="ed25519:k",sig="s/+"',
        'x-matrix origin="a.org",destination="b.org:8448",key="ed25519:k",sig="s/+"',
        'X-MATRIX   sig="s/+" ,\tkey="ed25519:k"  , destination="b.org:8448" , origin="a.org" ',
        'X-Matrix ORIGIN="a.org",Destination="b.org:8448",Key="ed25519:k",SIG="s/+"',
        "X-Matrix origin=a.org,destination=b.org:8448,key=ed25519:k,sig=s/+",
        r'X-Matrix origin="\a.org",destination="b\.org:8448",key="ed25519\:k",sig="s/+"',
        'X-Matrix origin="a.org",destination="b.org:8448",key="ed25519:k",sig="s/+",new="of the future"',
        'X-Matrix origin="a.org",destination="b.org:8448",key="ed25519:k",sig="s/+",',
        'X-Matrix origin="a.org",destination="b.org:8448",key="ed25519:k",signature="s/+"',
        'X-Matrix origin="a.org",destination="b.org:8448",key="ed25519:k",signature="x",sig="s/+"',
        'X-Matrix , origin="a.org",,destination="b.org:8448" , ,key="ed25519:k",sig="s/+", ,',
        'X-Matrix origin = "a.org",destination="b.org:8448",key="ed25519:k",sig="s/+"',
    ],
)
def test_what_a_header_says(header: str) -> None:
    assert parse(header) == GOOD


def test_an_older_server_does_not_say_for_whom_it_signs() -> None:
    assert parse('X-Matrix origin=a.org,key="ed25519:k",sig="s"').destination is None


def test_quoted_commas_and_quotes_are_no_ends() -> None:
    assert parse(r'X-Matrix origin="a,\"b\\",key="k",sig="s"').origin == r'a,"b\\'[:-1]


def test_several_headers_are_signatures_of_one_server() -> None:
    lines = "".join(f'Authorization: X-Matrix origin=a.org,key="ed25519:{n}",sig="s{n}"\r\n' for n in (1, 2))
    head = parse_request(f"GET / HTTP/1.1\r\nHost: b\r\n{lines}\r\n".encode())
    assert parse(head.headers["authorization"]).signatures == {"ed25519:1": "s1", "ed25519:2": "s2"}


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "X-Matrix",
        "X-Matrix ",
        "Bearer abc",
        "X-Matrix abc",
        'X-Matrix origin="a.org"',
        'X-Matrix origin="a.org",key="k"',
        'X-Matrix origin="a.org",key="",sig="s"',
        'X-Matrix origin="a.org",origin="b.org",key="k",sig="s"',
        'X-Matrix origin="a.org,key="k",sig="s"',
        'X-Matrix origin="a.org";key="k";sig="s"',
        'X-Matrix origin="a\norg",key="k",sig="s"',
        'X-Matrix origin="a.org",key="k",sig="s" "t"',
        'X-Matrix origin="a.org",key="k",sig="s\\',
        "X-Matrix origin=a,key=k,sig=s, X-Matrix origin=b,key=k,sig=s",
        "X-Matrix origin=a,key=k,sig=s, Bearer token",
        ", ".join(f'X-Matrix origin=a,key="k{n}",sig=s' for n in range(11)),
        'X-Matrix origin="' + "a" * 9000 + '",key="k",sig="s"',
        "X-Matrix " + "a=b," * 2000,
        "X-Matrix " + "," * 8000,
    ],
)
def test_what_is_no_signature(header: str | None) -> None:
    with pytest.raises(MatrixError) as caught:
        parse(header)
    assert (caught.value.code, caught.value.errcode) == (401, "M_UNAUTHORIZED")
