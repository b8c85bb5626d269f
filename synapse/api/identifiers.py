"""Identifiers: users, rooms, aliases, events, servers. Their grammar, their parts, and new ones.

Grammar only: whether somebody of that name exists is for the stores to say. Functions named `is_…` answer a question;
`parse_…` raises `MatrixError` 400 M_INVALID_PARAM with a sentence. Foreign users are measured by the historical
grammar, which the specification obliges us to accept; own ones by the strict grammar.

Grammar: appendices, "Identifier Grammar".
"""

from __future__ import annotations

import re
import secrets
import string
from typing import Final, NamedTuple

from synapse.api.constants import MAX_ID_BYTES
from synapse.api.errors import Codes, MatrixError, invalid_param

MAX_SERVER_NAME: Final = 255

_SERVER_NAME: Final = re.compile(
    r"(?:(?P<v4>\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3})|\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<dns>[0-9A-Za-z.-]{1,255}))"
    r"(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII,
)
_STRICT_LOCALPART: Final = re.compile(r"[a-z0-9._=/+-]+", re.ASCII)
_OPAQUE: Final = re.compile(r"[0-9A-Za-z._~-]{1,255}", re.ASCII)
_HASH_ID: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_ROOM_VERSION: Final = re.compile(r"[a-z0-9.-]{1,32}", re.ASCII)
# The separating colon, NUL and lone surrogates (which cannot be UTF-8) are all that a historical localpart lacks.
_BAD_LOCALPART: Final = re.compile("[:\x00\ud800-\udfff]")


class Identifier(NamedTuple):
    """The two halves of `&localpart:domain`."""

    localpart: str
    domain: str


def is_server_name(name: str) -> bool:
    """Whether `name` is `hostname[:port]` with a DNS name, an IPv4 or a bracketed IPv6 address."""
    match = _SERVER_NAME.fullmatch(name) if len(name) <= MAX_SERVER_NAME else None
    if match is None:
        return False
    port, v4, v6 = match["port"], match["v4"], match["v6"]
    if port is not None and int(port) > 65535:
        return False
    if v4 is not None:
        return all(int(part) <= 255 for part in v4.split("."))
    return v6 is None or _is_ipv6(v6)


def _is_ipv6(text: str) -> bool:
    import ipaddress  # only here: the module is not small, and such names are rare

    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def split_server_name(name: str) -> tuple[str, int | None]:
    """Host (brackets of IPv6 kept) and port of a valid server name."""
    if name.endswith("]") or ":" not in name:
        return name, None
    host, _, port = name.rpartition(":")
    return host, int(port)


def _split(sigil: str, text: str) -> Identifier | None:
    if len(text) < 3 or text[0] != sigil:
        return None
    localpart, colon, domain = text[1:].partition(":")
    if not colon or not _is_text(localpart) or not fits(text) or not is_server_name(domain):
        return None
    return Identifier(localpart, domain)


def _is_text(localpart: str) -> bool:
    return (localpart.isascii() and "\x00" not in localpart) or _BAD_LOCALPART.search(localpart) is None


def fits(text: str) -> bool:
    """Whether `text` has at most 255 bytes in UTF-8."""
    return len(text) <= MAX_ID_BYTES and (text.isascii() or len(text.encode("utf-8", "replace")) <= MAX_ID_BYTES)


def domain_of(identifier: str) -> str:
    """The server name in a user id, alias, or room or event id of the older form; "" if there is none (v12 rooms).

    Does not check the grammar: for identifiers that have been checked when they came in.
    """
    return identifier.partition(":")[2]


def localpart_of(identifier: str) -> str:
    """What stands between the sigil and the first colon, unchecked."""
    return identifier[1:].partition(":")[0]


def is_user_id(text: str) -> bool:
    """Whether `text` is a user id by the historical grammar, which events of foreign users may use."""
    return _split("@", text) is not None


def is_strict_user_id(text: str) -> bool:
    """Whether `text` is a user id of the present grammar, as own users must be."""
    parts = _split("@", text)
    return parts is not None and _STRICT_LOCALPART.fullmatch(parts.localpart) is not None


def is_compliant_user_id(text: str) -> bool:
    """Whether a foreign user may be shown to clients outside events: localpart not empty, all of it visible ASCII."""
    parts = _split("@", text)
    return parts is not None and parts.localpart != "" and all("!" <= char <= "~" for char in parts.localpart)


def parse_user_id(text: str) -> Identifier:
    """The parts of a user id (historical grammar); raises M_INVALID_PARAM."""
    parts = _split("@", text)
    if parts is None:
        raise invalid_param(f"'{_shown(text)}' is not a user ID; it should look like @name:server.")
    return parts


def is_valid_localpart(localpart: str) -> bool:
    """Whether a new own user may have this localpart (length apart; see `check_new_user_id`)."""
    return _STRICT_LOCALPART.fullmatch(localpart) is not None


def check_new_user_id(localpart: str, server_name: str) -> str:
    """The id of a user to be created here; raises 400 M_INVALID_USERNAME."""
    user_id = f"@{localpart}:{server_name}"
    if not is_valid_localpart(localpart):
        raise MatrixError(
            400, Codes.INVALID_USERNAME, "A user name may contain only the characters a-z, 0-9, and ._=-/+"
        )
    if not fits(user_id):
        raise MatrixError(400, Codes.INVALID_USERNAME, f"A user ID may not be longer than {MAX_ID_BYTES} characters.")
    return user_id


def map_to_localpart(name: str, case_sensitive: bool = False) -> str:
    """A localpart for a name of another system: appendices, "Mapping from other character sets"."""
    if case_sensitive:
        name = re.sub("[A-Z_]", lambda match: "_" + match[0].lower(), name)
    allowed = frozenset((string.ascii_lowercase + string.digits + "._-/+").encode())
    encoded = name.encode("utf-8", "surrogatepass")
    lowered = bytes(byte + 32 if 65 <= byte <= 90 else byte for byte in encoded)
    return "".join(chr(byte) if byte in allowed else f"={byte:02x}" for byte in lowered)


def is_room_id(text: str) -> bool:
    """Whether `text` is a room id, with a domain (until v11) or a hash without one (from v12 on)."""
    return text[:1] == "!" and (_HASH_ID.fullmatch(text, 1) is not None or _split("!", text) is not None)


def is_room_id_without_domain(text: str) -> bool:
    """Whether `text` is a room id of room version 12 or later."""
    return text[:1] == "!" and _HASH_ID.fullmatch(text, 1) is not None


def parse_room_id(text: str) -> str:
    """`text` itself if it is a room id; raises M_INVALID_PARAM."""
    if not is_room_id(text):
        raise invalid_param(
            f"'{_shown(text)}' is not a room ID; it should look like !name:server, or ! and 43 letters."
        )
    return text


def is_room_alias(text: str) -> bool:
    return _split("#", text) is not None


def parse_room_alias(text: str) -> Identifier:
    """The parts of a room alias; raises M_INVALID_PARAM."""
    parts = _split("#", text)
    if parts is None:
        raise invalid_param(f"'{_shown(text)}' is not a room alias; it should look like #name:server.")
    return parts


def is_event_id(text: str) -> bool:
    """Whether `text` can be an event id of any room version. Which form a room's ids have is the version's matter."""
    return len(text) > 1 and text[0] == "$" and fits(text) and "\x00" not in text


def parse_event_id(text: str) -> str:
    """`text` itself if it can be an event id; raises M_INVALID_PARAM."""
    if not is_event_id(text):
        raise invalid_param(f"'{_shown(text)}' is not an event ID; it should start with '$'.")
    return text


def is_room_version(text: str) -> bool:
    """Whether `text` has the form of a room version; that we support it is another question."""
    return _ROOM_VERSION.fullmatch(text) is not None


def is_opaque_id(text: str) -> bool:
    """Appendices, "Opaque Identifiers": device ids, session ids, media ids."""
    return _OPAQUE.fullmatch(text) is not None


def room_id_of_create(event_id: str) -> str:
    """The id of the room that a create event of room version 12 founds."""
    return "!" + event_id[1:]


def create_id_of_room(room_id: str) -> str:
    """The create event's id of a room of version 12: the inverse of `room_id_of_create`."""
    return "$" + room_id[1:]


def random_letters(length: int, alphabet: str = string.ascii_letters) -> str:
    """Unpredictable text: `length` letters, 5.7 bits each with the default alphabet."""
    # One question to the system for all letters. The remainders of so large a number are as good as even.
    number = int.from_bytes(secrets.token_bytes(length + 16), "big")
    letters: list[str] = []
    for _ in range(length):
        number, index = divmod(number, len(alphabet))
        letters.append(alphabet[index])
    return "".join(letters)


def new_room_id(server_name: str) -> str:
    """For room versions until 11; later rooms are named by their create event."""
    return f"!{random_letters(18)}:{server_name}"


def new_event_id(server_name: str) -> str:
    """For room versions 1 and 2; later events are named by their hash."""
    return f"${random_letters(24)}:{server_name}"


def new_device_id() -> str:
    return random_letters(10, string.ascii_uppercase)


def _shown(text: str, limit: int = 80) -> str:
    """`text` as it may stand in an error message: without control characters, and not endless."""
    clean = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:limit])
    return clean + "…" if len(text) > limit else clean
