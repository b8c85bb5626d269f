"""The sections of a configuration that are about what accounts may do, and what this server tells its users."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec

from synapse.config.options import Doc, Duration, Path, Secret, Section

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


class NoticeContent(Section, frozen=True, kw_only=True):
    """What a message says."""

    msgtype: Annotated[str, Doc("The kind of message.")] = "m.text"
    body: Annotated[str, Doc("What it says; `%(consent_uri)s` in it becomes the address of the user's page.")]


POLICY_VERSION: Final = re.compile(r"\w[\w.-]{0,63}", re.ASCII)
"""What the version of a policy may look like: it is the name of a file."""


class UserConsent(Section, frozen=True, kw_only=True):
    """A policy that users are to agree to, on a page of this server."""

    template_dir: Annotated[
        Path,
        Doc(
            "A directory with a directory per language, at least `en`, in which the policy is a template named after "
            "its version: `en/1.0.html`.",
            example="/etc/synapse/policy",
        ),
    ]
    version: Annotated[str, Doc("The version of the policy that users are to have agreed to.", example="1.0")]
    policy_name: Annotated[str, Doc("How clients call the policy.")] = "Privacy Policy"
    server_notice_content: Annotated[
        NoticeContent | None,
        Doc(
            "The server notice that asks users to agree who have not. Without it none is sent.",
            example={"msgtype": "m.text", "body": "Please agree to our terms at %(consent_uri)s"},
        ),
    ] = None
    send_server_notice_to_guests: Annotated[bool, Doc("Whether guests get that notice, too.")] = False
    block_events_error: Annotated[
        str | None,
        Doc(
            "With this sentence are refused who have not agreed, when they send, join, or create a room; "
            "`%(consent_uri)s` in it becomes the address of the user's page. Without it nobody is refused."
        ),
    ] = None
    require_at_registration: Annotated[bool, Doc("Whether new users have to agree when they register.")] = False


class ServerNotices(Section, frozen=True, kw_only=True):
    """A room with each user in which this server tells them something."""

    system_mxid_localpart: Annotated[
        str, Doc("The user in whose name the server speaks. Nobody else can have that name.", example="notices")
    ]
    system_mxid_display_name: Annotated[str | None, Doc("How that user is called.", example="Server Notices")] = None
    system_mxid_avatar_url: Annotated[str | None, Doc("That user's picture, an mxc: URI.")] = None
    room_name: Annotated[str, Doc("How the rooms are called.")] = "Server Notices"
    room_avatar_url: Annotated[str | None, Doc("The rooms' picture, an mxc: URI.")] = None
    room_topic: Annotated[str | None, Doc("What the rooms are about.")] = None
    auto_join: Annotated[bool, Doc("Whether users are in the room at once, rather than invited to it.")] = False


class TellingConfig(Section, frozen=True, kw_only=True):
    """What users are asked for and told: consent to a policy, and notices of the server."""

    user_consent: Annotated[
        UserConsent | None,
        Doc(
            "A policy that users are to agree to; docs/accounts-admin.md tells how.",
            example={"template_dir": "/etc/synapse/policy", "version": "1.0"},
        ),
    ] = None
    form_secret: Annotated[
        Secret | None,
        Doc("A secret by which the addresses of users' own pages are made, so that nobody agrees for another."),
    ] = None
    server_notices: Annotated[
        ServerNotices | None,
        Doc("In whose name the server tells its users something.", example={"system_mxid_localpart": "notices"}),
    ] = None


class ReservedThreepid(Section, frozen=True, kw_only=True):
    """An address of somebody for whom there is always room."""

    medium: Annotated[str, Doc("`email` or `msisdn`.")]
    address: Annotated[str, Doc("The address.")]


class UsageConfig(Section, frozen=True, kw_only=True):
    """How many people may use this server: monthly active users, and a switch for all."""

    hs_disabled: Annotated[bool, Doc("Whether everybody is refused who writes, syncs, logs in or registers.")] = False
    hs_disabled_message: Annotated[str, Doc("With which sentence.")] = "This server is not in use at the moment."
    admin_contact: Annotated[
        str | None,
        Doc("An address of the administrators, which those who are refused are told.", "mailto:admin@example.org"),
    ] = None
    limit_usage_by_mau: Annotated[
        bool, Doc("Whether those are refused who would be more than `max_mau_value` active users in 30 days.")
    ] = False
    max_mau_value: Annotated[int, Doc("How many there may be.")] = 0
    mau_trial_days: Annotated[int, Doc("For how many days new accounts do not count.")] = 0
    mau_appservice_trial_days: Annotated[
        dict[str, int],
        Doc("The same for users of application services, by the id of the application service.", {"irc": 3}),
    ] = msgspec.field(default_factory=dict)
    mau_limit_reserved_threepids: Annotated[
        tuple[ReservedThreepid, ...],
        Doc("For people with these addresses there is always room.", [{"medium": "email", "address": "a@example.org"}]),
    ] = ()
    mau_limit_alerting: Annotated[
        bool, Doc("Whether users are told by a server notice when the limit is reached, and as long as it is.")
    ] = True
    mau_stats_only: Annotated[bool, Doc("Whether active users are counted although nobody is limited.")] = False


class AccountValidity(Section, frozen=True, kw_only=True):
    """Accounts that expire."""

    enabled: Annotated[bool, Doc("Whether accounts expire.")] = False
    period: Annotated[Duration | None, Doc("For how long an account is valid, and is renewed for.", "180d")] = None
    renew_at: Annotated[
        Duration | None,
        Doc("How long before that users are told by mail. Without it no mails are sent.", "14d"),
    ] = None
    renew_email_subject: Annotated[
        str, Doc("The subject of those mails; `%(app)s` is `email.app_name`, `%(server_name)s` the server's name.")
    ] = "Renew your %(app)s account"
    startup_job_max_delta: Annotated[
        Duration | None,
        Doc(
            "Accounts from before this was enabled end up to this long before the period is over, so that they do not "
            "all end together; by default a tenth of the period."
        ),
    ] = None


class ValidityConfig(Section, frozen=True, kw_only=True):
    """Accounts that expire."""

    account_validity: Annotated[
        AccountValidity, Doc("Whether, and when.", example={"enabled": True, "period": "180d", "renew_at": "14d"})
    ] = AccountValidity()
