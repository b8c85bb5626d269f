"""The section of a configuration that is about sessions: how long people stay logged in."""

from __future__ import annotations

from typing import Annotated

from synapse.config.options import Doc, Duration, Section


class SessionsConfig(Section, frozen=True, kw_only=True):
    """Sessions: how long people stay logged in. What is changed here holds for those who log in afterwards."""

    session_lifetime: Annotated[
        Duration | None,
        Doc(
            "How long a session lasts after the login, however it is used; unset: for good. Guests, who could not log "
            "in again, are exempt.",
            example="90d",
        ),
    ] = None
    nonrefreshable_access_token_lifetime: Annotated[
        Duration | None,
        Doc("How long an access token is valid in a session without refresh tokens; unset: for good.", example="24h"),
    ] = None
    refreshable_access_token_lifetime: Annotated[
        Duration,
        Doc("How long an access token is valid in a session with refresh tokens, which clients ask for that can."),
    ] = 300_000
    refresh_token_lifetime: Annotated[
        Duration | None,
        Doc("How long a refresh token is valid, and so how long a client may be away; unset: for good.", example="30d"),
    ] = None
