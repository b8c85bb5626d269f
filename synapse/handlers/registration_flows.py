"""What those who register have to prove: the flows of interactive authentication that the configuration comes to.

Client-server API, "Account registration and management".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from synapse.api.constants import LoginTypes
from synapse.api.threepids import EMAIL, MSISDN

if TYPE_CHECKING:
    from synapse.handlers.ui_auth import Flows


class Asked(NamedTuple):
    """What is asked of everybody; `offered` are the media of addresses that can be proven here, `required` those that
    have to be."""

    token: bool
    captcha: bool
    terms: bool
    offered: frozenset[str]
    required: frozenset[str]


def registration_flows(asked: Asked) -> Flows:
    """The flows, the plainest first. None is a part of another one: which a client is after has to be clear."""
    first = [
        *([LoginTypes.REGISTRATION_TOKEN] if asked.token else ()),
        *([LoginTypes.RECAPTCHA] if asked.captcha else ()),
        *([LoginTypes.TERMS] if asked.terms else ()),
    ]
    addresses: list[tuple[frozenset[str], list[str]]] = [
        (frozenset(), [LoginTypes.DUMMY]),
        (frozenset({EMAIL}), [LoginTypes.EMAIL_IDENTITY]),
        (frozenset({MSISDN}), [LoginTypes.MSISDN]),
        (frozenset({EMAIL, MSISDN}), [LoginTypes.MSISDN, LoginTypes.EMAIL_IDENTITY]),
    ]
    return [
        [*first, *stages] for media, stages in addresses if asked.required <= media <= asked.offered | asked.required
    ]
