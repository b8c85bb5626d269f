"""The options of federation: with whom, how far they are believed, and how often they are asked.

And the check of what cannot be declared.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import TYPE_CHECKING, Annotated, Final

from synapse.api.identifiers import is_server_name
from synapse.config.errors import ConfigError
from synapse.config.options import Doc, Duration, Path, Positive, Section

if TYPE_CHECKING:
    from synapse.config.root import Config

_SECOND: Final = 1000
_MINUTE: Final = 60 * _SECOND
_DAY: Final = 24 * 3600 * _SECOND
_FIRST_TS: Final = 1_000_000_000_000
"""In 2001, before there was Matrix; what is less was written in seconds."""


class OldSigningKey(Section, frozen=True, kw_only=True):
    """A key that this server signs with no more."""

    key: Annotated[str, Doc("The public key, in unpadded base64.")]
    expired_ts: Annotated[int, Doc("When it went out of use, in milliseconds since 1970.")]


class TrustedKeyServer(Section, frozen=True, kw_only=True):
    """A notary."""

    server_name: Annotated[str, Doc("Its server name.", example="matrix.org")]
    verify_keys: Annotated[
        dict[str, str] | None,
        Doc(
            "Its public keys by their ids, in unpadded base64. Without them it is asked for its keys, over TLS.",
            example={"ed25519:auto": "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopr"},
        ),
    ] = None
    accept_keys_insecurely: Annotated[
        bool, Doc("Whether to believe it without its signature. Whoever can pretend to be it can forge any event then.")
    ] = False


class FederationRate(Section, frozen=True, kw_only=True):
    """How many requests of one other server are answered in which time."""

    window_size: Annotated[Duration, Doc("The time in which requests are counted.")] = _SECOND
    sleep_limit: Annotated[Positive, Doc("From so many requests in that time on, each further one has to wait.")] = 10
    sleep_delay: Annotated[Duration, Doc("How long it waits.")] = 500
    reject_limit: Annotated[Positive, Doc("When so many wait, further ones are refused (M_LIMIT_EXCEEDED).")] = 50
    concurrent: Annotated[Positive, Doc("How many are worked on at the same time; further ones wait.")] = 3


class FederatingConfig(Section, frozen=True, kw_only=True):
    """Federation: with which other servers, and how they prove who they are."""

    federation_domain_whitelist: Annotated[
        tuple[str, ...] | None,
        Doc(
            "The only servers to have anything to do with; an empty list for none. Without it, all. Rooms that "
            "others are in already are not left by it: set it before anybody joins.",
            example=["lon.example.com", "nyc.example.com"],
        ),
    ] = None
    federation_verify_certificates: Annotated[
        bool, Doc("Whether other servers must prove by a certificate that they are who they should be.")
    ] = True
    federation_certificate_verification_whitelist: Annotated[
        tuple[str, ...],
        Doc(
            "Servers that need not prove it. `*` stands for anything, also within a name.",
            example=["lon.example.com", "*.onion"],
        ),
    ] = ()
    federation_custom_ca_list: Annotated[
        tuple[Path, ...],
        Doc(
            "Files (PEM) with the authorities that other servers' certificates must come from, in place of the "
            "system's.",
            example=["/etc/synapse/ca.pem"],
        ),
    ] = ()
    federation_ip_range_blacklist: Annotated[
        tuple[str, ...] | None,
        Doc("Networks that other servers are not looked for in; by default those of `ip_range_blacklist`.", example=[]),
    ] = None
    federation_rr_transactions_per_room_per_second: Annotated[
        float, Doc("How many transactions a second the receipts in a room may bring about, for all of its servers.")
    ] = 50.0
    allow_public_rooms_over_federation: Annotated[
        bool, Doc("Whether other servers' users can read this server's room directory.")
    ] = False
    allow_profile_lookup_over_federation: Annotated[
        bool, Doc("Whether other servers can ask for the profiles of this server's users.")
    ] = True
    allow_device_name_lookup_over_federation: Annotated[
        bool, Doc("Whether other servers' users see what this server's users call their devices.")
    ] = False
    rc_federation: Annotated[FederationRate, Doc("How many requests of each other server are answered.")] = (
        FederationRate()
    )
    old_signing_keys: Annotated[
        dict[str, OldSigningKey],
        Doc(
            "Keys that this server has signed with before, by their ids: old events are checked with them.",
            example={"ed25519:a_old": {"key": "base64string", "expired_ts": 1576800000000}},
        ),
    ] = {}  # noqa: RUF012  # msgspec copies it
    key_refresh_interval: Annotated[
        Duration, Doc("How long other servers may keep this server's keys without asking again.")
    ] = _DAY
    trusted_key_servers: Annotated[
        tuple[TrustedKeyServer, ...],
        Doc(
            "Notaries: servers that are believed what the keys of others are, where these do not answer themselves.",
            example=[{"server_name": "matrix.org"}],
        ),
    ] = ()
    suppress_key_server_warning: Annotated[
        bool, Doc("Whether to be silent about a notary that is not told apart from others by `verify_keys`.")
    ] = False


class FederationConfig(Section, frozen=True, kw_only=True):
    """Requests to other servers (`federation:`): how long to wait, how often to try again."""

    client_timeout: Annotated[Duration, Doc("How long a request may take.")] = 60 * _SECOND
    max_short_retry_delay: Annotated[
        Duration, Doc("The longest pause before what somebody waits for is tried again.")
    ] = 2 * _SECOND
    max_long_retry_delay: Annotated[
        Duration, Doc("The longest pause before anything else, such as sending events, is tried again.")
    ] = 60 * _SECOND
    max_short_retries: Annotated[int, Doc("How often what somebody waits for is tried again.")] = 3
    max_long_retries: Annotated[int, Doc("How often anything else is tried again.")] = 10
    destination_min_retry_interval: Annotated[
        Duration, Doc("How long a server is left alone when all of that was in vain.")
    ] = 10 * _MINUTE
    destination_retry_multiplier: Annotated[
        float, Doc("By how much longer each further time, if it still does not answer.")
    ] = 2.0
    destination_max_retry_interval: Annotated[Duration, Doc("The longest that a server is left alone.")] = _DAY


# -- checks ------------------------------------------------------------------------------------------------------------


def check_federation(config: Config, place: Callable[[str | None], str]) -> Iterator[str]:
    """What cannot be declared; yields what is odd. Raises ConfigError."""

    def fail(option: str, problem: str, remedy: str) -> ConfigError:
        return ConfigError(place(option.partition(".")[0].partition("[")[0]), option, problem, remedy)

    options = config.federating
    for network in options.federation_ip_range_blacklist or ():
        try:
            ip_network(network)
        except ValueError:
            problem = f"has {network!r}, which is no network"
            raise fail("federation_ip_range_blacklist", problem, "write networks as `10.0.0.0/8`") from None
    for name in options.federation_domain_whitelist or ():
        if not is_server_name(name):
            problem = f"has {name!r}, which is no server name"
            raise fail("federation_domain_whitelist", problem, "write server names, as `example.com`")
    for key_id, key in options.old_signing_keys.items():
        if not key_id.startswith("ed25519:") or not is_public_key(key.key):
            problem = "is not the public key, in base64, of an id that begins with `ed25519:`"
            raise fail(f"old_signing_keys.{key_id}", problem, "take both from the key's publication")
        if key.expired_ts < _FIRST_TS:
            problem = f"is {key.expired_ts}, which is no time in milliseconds since 1970"
            raise fail(f"old_signing_keys.{key_id}.expired_ts", problem, "write seconds times 1000")
    if options.key_refresh_interval < _MINUTE:
        problem = "is under a minute, so that others could not believe any key of this server"
        raise fail("key_refresh_interval", problem, "write `1d`, or remove it")
    if options.federation_rr_transactions_per_room_per_second <= 0:
        problem = "must be more than 0"
        raise fail("federation_rr_transactions_per_room_per_second", problem, "write 50, or remove it")
    if config.federation.destination_retry_multiplier < 1:
        problem = "must be at least 1"
        raise fail("federation.destination_retry_multiplier", problem, "write 2, or remove it")
    if not config.federation.client_timeout:
        raise fail("federation.client_timeout", "is 0, so that no request would be answered in time", "write `60s`")
    if config.federation.destination_min_retry_interval > config.federation.destination_max_retry_interval:
        problem = "is longer than `destination_max_retry_interval`"
        raise fail("federation.destination_min_retry_interval", problem, "make it the shorter of the two")
    if not options.rc_federation.window_size:
        raise fail("rc_federation.window_size", "is 0, so that nothing would be counted", "write `1s`")
    for option in ("max_short_retries", "max_long_retries"):
        if getattr(config.federation, option) < 0:
            raise fail(f"federation.{option}", "must not be negative", "write 0 for none")
    for index, path in enumerate(options.federation_custom_ca_list):
        wrong = _no_certificates(path)
        if wrong is not None:
            remedy = "put the authority's certificate there (PEM), readable for the user that the server runs as"
            raise fail(f"federation_custom_ca_list[{index}]", wrong, remedy)
    yield from _notaries(config, fail)


def _no_certificates(path: str) -> str | None:
    """What is wrong with a file of certificates, at first sight."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        return f"names the file {path}, which cannot be read ({error.strerror})"
    return None if b"-----BEGIN CERTIFICATE-----" in content else f"names the file {path}, which has no certificate"


def _notaries(config: Config, fail: Callable[[str, str, str], ConfigError]) -> Iterator[str]:
    options = config.federating
    for index, notary in enumerate(options.trusted_key_servers):
        option = f"trusted_key_servers[{index}]"
        if not is_server_name(notary.server_name):
            raise fail(option, f"names {notary.server_name!r}, which is no server name", "write one")
        for key_id, key in (notary.verify_keys or {}).items():
            if not key_id.startswith("ed25519:") or not is_public_key(key):
                problem = f"has the key {key_id!r}, which is not a public key in base64 of an id `ed25519:…`"
                raise fail(option, problem, "take both from the server's publication")
        if notary.verify_keys or notary.accept_keys_insecurely:
            continue
        if not certificate_needed(options, notary.server_name):
            problem = "could be anybody: it has no `verify_keys`, and certificates are not verified"
            remedy = "add its `verify_keys`, or set `accept_keys_insecurely: true` if this is for tests"
            raise fail(option, problem, remedy)
        if not options.suppress_key_server_warning:
            yield (
                f"The notary {notary.server_name} of `trusted_key_servers` has no `verify_keys`: whoever controls its "
                "name can forge events. Add them, or set `suppress_key_server_warning: true`."
            )


def is_public_key(text: str) -> bool:
    """Whether it is the base64 of an Ed25519 key."""
    try:
        return len(base64.b64decode(text + "=" * (-len(text) % 4), validate=True)) == 32
    except (binascii.Error, ValueError):
        return False


def certificate_needed(options: FederatingConfig, server_name: str) -> bool:
    """Whether the server of that name must have a certificate."""
    if not options.federation_verify_certificates:
        return False
    patterns = options.federation_certificate_verification_whitelist
    return not any(fnmatch.fnmatchcase(server_name, pattern) for pattern in patterns)
