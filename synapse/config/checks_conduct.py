"""Checks of the options about what accounts may do and what users are told; see `synapse.config.checks`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from synapse.api.errors import MatrixError
from synapse.api.threepids import canonical
from synapse.config.conduct import POLICY_VERSION
from synapse.config.errors import ConfigError

if TYPE_CHECKING:
    from synapse.config.checks import Place
    from synapse.config.conduct import UserConsent
    from synapse.config.root import Config

_LOCALPART: Final = re.compile(r"[a-z0-9._=/+-]+", re.ASCII)


def check(config: Config, place: Place) -> Iterator[str]:
    """All of them, the first obstacle raised, what is odd yielded."""
    consent = config.telling.user_consent
    if consent is not None:
        _consent(config, consent, place)
    notices = config.telling.server_notices
    if notices is not None and not _LOCALPART.fullmatch(notices.system_mxid_localpart):
        raise ConfigError(
            place("server_notices"),
            "server_notices.system_mxid_localpart",
            f"is {notices.system_mxid_localpart!r}, which no user can be called",
            "write lower-case letters, digits and . _ = - / +, such as notices",
        )
    for option in ("system_mxid_avatar_url", "room_avatar_url"):
        url = None if notices is None else getattr(notices, option)
        if url is not None and not url.startswith("mxc://"):
            problem = f"is {url!r}, which is no mxc: URI"
            remedy = "upload the picture to this server, and write the URI that the answer names"
            raise ConfigError(place("server_notices"), f"server_notices.{option}", problem, remedy)
    yield from _usage(config, place)
    _validity(config, place)


def _consent(config: Config, consent: UserConsent, place: Place) -> None:
    where = place("user_consent")
    if config.telling.form_secret is None:
        raise ConfigError(where, "form_secret", "is missing, and `user_consent` needs it", "write a long random text")
    if not POLICY_VERSION.fullmatch(consent.version):
        raise ConfigError(
            where,
            "user_consent.version",
            f"is {consent.version!r}, which cannot be the name of a file",
            "write letters, digits, dots and dashes, in quotes",
        )
    template = os.path.join(consent.template_dir, "en", f"{consent.version}.html")
    # The main process shows it; workers name its languages to those who register.
    is_needed = config.is_main or consent.require_at_registration
    if is_needed and not os.path.isfile(template):
        raise ConfigError(
            where,
            "user_consent.template_dir",
            f"has no file en/{consent.version}.html",
            f"put the policy into {template}",
        )
    if consent.server_notice_content is not None and config.telling.server_notices is None:
        raise ConfigError(
            where,
            "user_consent.server_notice_content",
            "is set, but `server_notices` is not",
            "configure both or neither",
        )


def _usage(config: Config, place: Place) -> Iterator[str]:
    usage = config.usage
    if usage.limit_usage_by_mau and usage.max_mau_value < 1:
        raise ConfigError(
            place("limit_usage_by_mau"),
            "max_mau_value",
            "has to be at least 1 to limit anything",
            "write how many may come",
        )
    for index, threepid in enumerate(usage.mau_limit_reserved_threepids):
        option = f"mau_limit_reserved_threepids[{index}]"
        try:
            canonical(threepid.medium, threepid.address)
        except MatrixError as error:
            remedy = "write an e-mail address, or a phone number with its country's code"
            raise ConfigError(
                place("mau_limit_reserved_threepids"), option, f"is no address ({error.message})", remedy
            ) from None
    if (usage.limit_usage_by_mau or usage.hs_disabled) and usage.admin_contact is None:
        yield f"{place('admin_contact')}: `admin_contact` is not set: those who are refused are not told whom to ask."


def _validity(config: Config, place: Place) -> None:
    validity, where = config.validity.account_validity, place("account_validity")
    if not validity.enabled:
        return
    if not validity.period:
        raise ConfigError(
            where, "account_validity.period", "is missing", "write how long accounts are valid, such as 180d"
        )
    if (validity.startup_job_max_delta or 0) > validity.period:
        option = "account_validity.startup_job_max_delta"
        raise ConfigError(where, option, "is longer than the period", "make it shorter")
    if (validity.renew_at or 0) >= validity.period:
        remedy = "make it shorter, such as 14d"
        raise ConfigError(where, "account_validity.renew_at", "is not shorter than the period", remedy)
    if validity.renew_at is not None and not config.email.is_enabled:
        raise ConfigError(
            where, "account_validity.renew_at", "is set, but no mail can be sent", "configure `email`, or remove it"
        )
    try:
        _ = validity.renew_email_subject % {"app": "", "server_name": ""}
    except (ValueError, KeyError, TypeError):
        remedy = "write %(app)s or %(server_name)s, and %% for a percent sign"
        option = "account_validity.renew_email_subject"
        raise ConfigError(where, option, "has a % that means nothing", remedy) from None
