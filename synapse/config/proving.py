"""The sections of a configuration that are about what is asked of people: before they register, and before they do what
could harm them.
"""

from __future__ import annotations

from typing import Annotated

from synapse.config.options import Doc, Duration, Section


class UiAuthConfig(Section, frozen=True, kw_only=True):
    """Interactive authentication: asking users who they are before they do what could harm them (`ui_auth:`)."""

    session_timeout: Annotated[
        Duration,
        Doc(
            "For how long a device whose user has just proven who they are is not asked again. Deactivating the "
            "account, its password and its addresses, and logging in elsewhere always ask. 0 is for not at all."
        ),
    ] = 0
