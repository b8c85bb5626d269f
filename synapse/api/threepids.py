"""Third-party identifiers: e-mail addresses and phone numbers, and the one form in which each is kept and compared.

Appendices, "3PID Types". Whatever people type goes through `canonical` before it is looked up, stored or written to:
a mail to the address as typed could reach somebody else than the one who has the address as kept.
"""

from __future__ import annotations

import re
from typing import Final

from synapse.api.errors import Codes, MatrixError, invalid_param

EMAIL: Final = "email"
MSISDN: Final = "msisdn"
MEDIA: Final = (EMAIL, MSISDN)

MAX_EMAIL: Final = 254  # characters: what SMTP carries (RFC 5321, "Size Limits and Minimums"), less the brackets
_LOCAL_PART: Final = re.compile(r'[^\s\x00-\x20\x7f()<>\[\]:;@\\,"]+')
_DOMAIN: Final = re.compile(r"[^\W_](?:[\w-]*[^\W_])?(?:\.[^\W_](?:[\w-]*[^\W_])?)*")
_DIGITS: Final = re.compile(r"\d{4,15}", re.ASCII)
_PUNCTUATION: Final = re.compile(r"[\s().\-/]", re.ASCII)


def canonical(medium: str, address: str) -> str:
    """The address as it is kept. Raises 400 M_INVALID_PARAM, M_THREEPID_MEDIUM_NOT_SUPPORTED."""
    if medium == EMAIL:
        return canonical_email(address)
    if medium == MSISDN:
        return canonical_msisdn(address)
    raise MatrixError(
        400,
        Codes.THREEPID_MEDIUM_NOT_SUPPORTED,
        f"The 'medium' must be one of {', '.join(MEDIA)}; another is not known here.",
    )


def canonical_email(address: str) -> str:
    """`user@domain`, case-folded: `Strauß@Example.com` is `strauss@example.com`. Raises 400 M_INVALID_PARAM.

    Comments, quoted local parts and addresses in brackets are refused: nobody has such an address, and each is a way to
    say something else to a mail server than to us.
    """
    folded = address.strip().casefold()
    local, at, domain = folded.partition("@")
    if (
        not at
        or len(folded) > MAX_EMAIL
        or not folded.isprintable()
        or not _LOCAL_PART.fullmatch(local)
        or not _DOMAIN.fullmatch(domain)
    ):
        raise invalid_param("That is not an e-mail address such as 'alice@example.org'.")
    return folded


def canonical_msisdn(number: str, country: str | None = None) -> str:
    """Digits with the country code first, and nothing else. Raises 400 M_INVALID_PARAM.

    :param country: where the number would be dialled, in two letters (ISO 3166-1): then it may lack the country code.
    """
    digits = _PUNCTUATION.sub("", number[:64])
    if not _DIGITS.fullmatch(digits.removeprefix("+")):
        raise _no_number()
    import phonenumbers  # half a megabyte that few processes need

    if country is not None and (not country.isascii() or country.upper() not in phonenumbers.SUPPORTED_REGIONS):
        raise invalid_param("The 'country' must be a country's two letters, such as GB.")
    try:
        if country is None:
            parsed = phonenumbers.parse("+" + digits.removeprefix("+"))
        else:
            parsed = phonenumbers.parse(digits, country.upper())
    except phonenumbers.NumberParseException:
        raise _no_number() from None
    # Numbers that are dialled within a town alone are possible as well, says the library's plainer question.
    if phonenumbers.is_possible_number_with_reason(parsed) != phonenumbers.ValidationResult.IS_POSSIBLE:
        raise _no_number()
    return str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)).removeprefix("+")


def _no_number() -> MatrixError:
    return invalid_param("That is not a phone number that could be called.")
