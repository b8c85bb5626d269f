"""The sections of a configuration that are about logging in by other means than a password: tokens, single sign-on."""

from __future__ import annotations

from typing import Annotated, Final

from synapse.config.options import Doc, Duration, Section

_MINUTE: Final = 60_000


class ExistingSessionConfig(Section, frozen=True, kw_only=True):
    """Logging in another device: what logged-in clients may get a login token for (`login_via_existing_session:`)."""

    enabled: Annotated[bool, Doc("Whether they may get one at all, through POST /login/get_token.")] = False
    require_ui_auth: Annotated[
        bool, Doc("Whether the user has to prove again to be themselves. Only turn it off if you know why.")
    ] = True
    token_timeout: Annotated[Duration, Doc("How long such a token is good.")] = 5 * _MINUTE
