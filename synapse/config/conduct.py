"""The sections of a configuration that are about what accounts may do, and what this server tells its users."""

from __future__ import annotations

from typing import Annotated, Final

from synapse.config.options import Doc, Duration, Section

_DAY: Final = 24 * 3600 * 1000


class SightingsConfig(Section, frozen=True, kw_only=True):
    """From where accounts are used: what is remembered of it."""

    user_ips_max_age: Annotated[
        Duration,
        Doc("For how long addresses and programs of users' devices are kept; administrators see them by `whois`."),
    ] = 28 * _DAY
    track_appservice_user_ips: Annotated[
        bool, Doc("Whether that is also kept of requests that application services make for their users.")
    ] = False
