"""What answers for e-mail addresses and phone numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.rest.rows.types import Row

if TYPE_CHECKING:
    from synapse.app._homeserver import Homeserver


def _threepids(hs: Homeserver) -> object:
    from synapse.rest.client.threepids import ThreepidEndpoints

    contacts = hs.accounts.contacts
    return ThreepidEndpoints(contacts.threepids, contacts.bindings, hs.accounts.ui_auth)


def _tokens(hs: Homeserver) -> object:
    from synapse.rest.client.threepid_tokens import ThreepidTokenEndpoints

    contacts = hs.accounts.contacts
    return ThreepidTokenEndpoints(contacts.tokens, contacts.validations)


def _pages(hs: Homeserver) -> object:
    from synapse.rest.client.threepid_pages import ThreepidPages

    accounts = hs.accounts
    return ThreepidPages(accounts.contacts.validations, accounts.templates, hs.config.server.server_name)


def _admin(hs: Homeserver) -> object:
    from synapse.rest.admin.threepids import AdminThreepids

    return AdminThreepids(hs.accounts.contacts.store)


ROWS: tuple[Row, ...] = (
    Row(
        (
            *("threepids", "threepids_add_old", "threepids_add", "threepids_bind", "threepids_delete"),
            "threepids_unbind",
        ),
        _threepids,
    ),
    Row(
        (
            *("threepids_email_token", "threepids_msisdn_token", "password_email_token", "password_msisdn_token"),
            *("register_email_token", "register_msisdn_token", "submit_msisdn_token"),
        ),
        _tokens,
    ),
    Row(
        ("registration_submit_email", "threepids_submit_email", "password_ask_email", "password_submit_email"),
        _pages,
    ),
    Row(("admin_threepid_owner",), _admin),
)
