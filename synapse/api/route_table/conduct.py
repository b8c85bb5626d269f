"""What administrators look up and decide about accounts, and what this server asks of its users."""

from synapse.api.route_table.types import CLIENT, Auth, Endpoint

_GET = ("GET",)
_PUT = ("PUT",)
_C = "/_matrix/client/{version}/admin"
_VALIDITY = "/_matrix/client/{version}/account_validity"
_ADMIN = "/_synapse/admin/v1"

ENDPOINTS = (
    Endpoint("suspend_get", f"{_C}/suspend/{{user_id}}", _GET, ("v1",), auth=Auth.ADMIN),
    Endpoint("suspend_set", f"{_C}/suspend/{{user_id}}", _PUT, ("v1",), auth=Auth.ADMIN),
    Endpoint("lock_get", f"{_C}/lock/{{user_id}}", _GET, ("v1",), auth=Auth.ADMIN),
    Endpoint("lock_set", f"{_C}/lock/{{user_id}}", _PUT, ("v1",), auth=Auth.ADMIN),
    # Users may look themselves up.
    Endpoint("whois", f"{_C}/whois/{{user_id}}", _GET, CLIENT),
    Endpoint("admin_whois", f"{_ADMIN}/whois/{{user_id}}", _GET, auth=Auth.ADMIN),
    # Pages for people, at addresses that prove who they are.
    Endpoint("consent_page", "/_matrix/consent", _GET, auth=Auth.NONE, resource="consent"),
    Endpoint("consent_given", "/_matrix/consent", ("POST",), auth=Auth.NONE, resource="consent"),
    Endpoint("admin_send_server_notice", f"{_ADMIN}/send_server_notice", ("POST",), auth=Auth.ADMIN),
    Endpoint("admin_send_server_notice_once", f"{_ADMIN}/send_server_notice/{{txn_id}}", _PUT, auth=Auth.ADMIN),
    Endpoint("account_validity_renew", f"{_VALIDITY}/renew", _GET, ("unstable",), auth=Auth.NONE),
    Endpoint(
        "account_validity_send_mail", f"{_VALIDITY}/send_mail", ("POST",), ("unstable",), ratelimit="rc_3pid_validation"
    ),
    Endpoint("admin_account_validity", f"{_ADMIN}/account_validity/validity", ("POST",), auth=Auth.ADMIN),
    Endpoint("admin_suspend", f"{_ADMIN}/suspend/{{user_id}}", _PUT, auth=Auth.ADMIN),
)
