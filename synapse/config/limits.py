"""The sections of rate limits: how often users may do what costs others something.

They are sections like those of `synapse.config.sections`, and of the one subject that grows with every kind of request.
"""

from __future__ import annotations

from typing import Annotated, Any

from synapse.config.options import Doc, Section


class RateLimit(Section, frozen=True, kw_only=True):
    """So many a second in the long run, and so many at once."""

    per_second: Annotated[float, Doc("How many a second, in the long run.")]
    burst_count: Annotated[int, Doc("How many at once, before the first has to wait.")]


def _rate(per_second: float, burst_count: int) -> RateLimit:
    return RateLimit(per_second=per_second, burst_count=burst_count)


class LoginLimits(Section, frozen=True, kw_only=True):
    """Logins."""

    address: Annotated[RateLimit, Doc("By address of the client.")] = _rate(0.17, 10)
    account: Annotated[RateLimit, Doc("By account that is logged in to.")] = _rate(0.17, 10)
    failed_attempts: Annotated[RateLimit, Doc("Failed ones, by account.")] = _rate(0.17, 5)
    sso: Annotated[RateLimit, Doc("Steps of single sign-on, by address of the browser.")] = _rate(3.0, 100)


class JoinLimits(Section, frozen=True, kw_only=True):
    """Joins."""

    local: Annotated[RateLimit, Doc("Of rooms that this server is in, by user.")] = _rate(0.5, 20)
    remote: Annotated[RateLimit, Doc("Of rooms by way of other servers, by user.")] = _rate(0.01, 10)


class InviteLimits(Section, frozen=True, kw_only=True):
    """Invites."""

    per_room: Annotated[RateLimit, Doc("By room; those with which a room begins do not count.")] = _rate(0.3, 10)
    per_user: Annotated[RateLimit, Doc("By user that is invited.")] = _rate(0.003, 5)
    per_issuer: Annotated[RateLimit, Doc("By user that invites.")] = _rate(0.3, 20)


class PresenceLimits(Section, frozen=True, kw_only=True):
    """Presence."""

    per_user: Annotated[RateLimit, Doc("How often users say who they seem to be: online, idle or gone.")] = _rate(
        0.2, 10
    )


class RatelimitConfig(Section, frozen=True, kw_only=True):
    """Rate limits: each is `{per_second, burst_count}`; a client that exceeds one is answered M_LIMIT_EXCEEDED."""

    rc_message: Annotated[RateLimit, Doc("Events that a user sends.")] = _rate(10.0, 50)
    rc_registration: Annotated[RateLimit, Doc("Registrations, by address of the client.")] = _rate(0.17, 5)
    rc_registration_token_validity: Annotated[
        RateLimit, Doc("Questions whether a registration token is good, by address of the client.")
    ] = _rate(0.1, 5)
    rc_login: Annotated[LoginLimits, Doc("Logins.")] = LoginLimits()
    rc_unknown_token: Annotated[
        RateLimit,
        Doc("Access tokens that the OAuth 2.0 authorization server does not know, or that are refused, by address."),
    ] = _rate(1.0, 30)
    rc_login_token: Annotated[RateLimit, Doc("Login tokens that a user gets for other devices.")] = _rate(1 / 60, 5)
    rc_joins: Annotated[JoinLimits, Doc("Joins.")] = JoinLimits()
    rc_invites: Annotated[InviteLimits, Doc("Invites.")] = InviteLimits()
    rc_key_requests: Annotated[
        RateLimit, Doc("Requests for room keys (m.room_key_request) that a user sends to devices.")
    ] = _rate(20.0, 100)
    rc_presence: Annotated[PresenceLimits, Doc("What users say of their presence.")] = PresenceLimits()
    rc_reports: Annotated[RateLimit, Doc("Events, rooms and users that a user reports.")] = _rate(1.0, 5)
    rc_third_party_invite: Annotated[
        RateLimit,
        Doc(
            "Invites by e-mail address or phone number, and addresses bound to identity servers and unbound, by user; "
            "and what identity servers tell of bindings, by address."
        ),
    ] = _rate(0.2, 10)
    rc_3pid_validation: Annotated[
        RateLimit,
        Doc("Mails and text messages that prove an address or renew an account, by address, and by who asks for them."),
    ] = _rate(0.003, 5)
    rc_user_directory: Annotated[RateLimit, Doc("Searches for users.")] = _rate(0.5, 200)
    rc_media_create: Annotated[RateLimit, Doc("Media that are announced before they are uploaded.")] = _rate(10.0, 50)
    rc_room_creation: Annotated[RateLimit, Doc("Rooms that a user creates, upgrades included.")] = _rate(0.016, 10)

    def by_name(self, name: str) -> RateLimit:
        """The limit of a dotted name, `rc_login.address`. Raises `AttributeError` where there is none."""
        found: Any = self
        for part in name.split("."):
            found = getattr(found, part)
        if not isinstance(found, RateLimit):
            raise AttributeError(f"{name} is no rate limit")
        return found
