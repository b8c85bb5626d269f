"""E-mail addresses and phone numbers: proving them, adding them to accounts, the pages behind the links in mails."""

from synapse.api.route_table import workers
from synapse.api.route_table.types import CLASSIC, CLIENT, KIB, Auth, Endpoint

_C = "/_matrix/client/{version}"
_POST = ("POST",)
_VERSIONS = (*CLIENT, "unstable")  # clients have used all three
_SUBMIT = ("unstable", "v3")
_ASKS_OTHERS = "rc_third_party_invite"


def _request(name: str, path: str) -> Endpoint:
    """Has a message sent. How often is decided by the address as well, once it is known."""
    return Endpoint(name, f"{_C}/{path}/requestToken", _POST, _VERSIONS, auth=Auth.NONE, max_body=16 * KIB)


def _submit(name: str, path: str, method: str = "GET") -> Endpoint:
    """Where the links in mails lead, and codes are sent."""
    return Endpoint(name, f"{_C}/{path}/submit_token", (method,), _SUBMIT, auth=Auth.NONE, max_body=16 * KIB)


ENDPOINTS = (
    Endpoint("threepids", f"{_C}/account/3pid", ("GET",), CLASSIC, (workers.THREEPIDS,)),
    Endpoint("threepids_add_old", f"{_C}/account/3pid", _POST, CLASSIC, (workers.THREEPIDS,)),
    Endpoint("threepids_add", f"{_C}/account/3pid/add", _POST, _VERSIONS),
    # What has this server talk to others of the user's choice is limited as invitations by address are.
    Endpoint("threepids_bind", f"{_C}/account/3pid/bind", _POST, _VERSIONS, ratelimit=_ASKS_OTHERS),
    Endpoint("threepids_delete", f"{_C}/account/3pid/delete", _POST, _VERSIONS, ratelimit=_ASKS_OTHERS),
    Endpoint("threepids_unbind", f"{_C}/account/3pid/unbind", _POST, _VERSIONS, ratelimit=_ASKS_OTHERS),
    _request("threepids_email_token", "account/3pid/email"),
    _request("threepids_msisdn_token", "account/3pid/msisdn"),
    _request("password_email_token", "account/password/email"),
    _request("password_msisdn_token", "account/password/msisdn"),
    _request("register_email_token", "register/email"),
    _request("register_msisdn_token", "register/msisdn"),
    _submit("registration_submit_email", "registration/email"),
    _submit("threepids_submit_email", "add_threepid/email"),
    _submit("password_ask_email", "password_reset/email"),
    _submit("password_submit_email", "password_reset/email", "POST"),
    _submit("submit_msisdn_token", "add_threepid/msisdn", "POST"),
    Endpoint("admin_threepid_owner", "/_synapse/admin/v1/threepid/{medium}/users/{address}", ("GET",), auth=Auth.ADMIN),
)
