"""Accounts, sessions, devices and what a user keeps with an account: profile, settings, filters, push rules, keys."""

from synapse.api.route_table import workers
from synapse.api.route_table.types import CLASSIC, CLIENT, MIB, REGISTER, Auth, Endpoint

_C = "/_matrix/client/{version}"
_DATA = f"{_C}/user/{{user_id}}/account_data/{{data_type}}"
_ROOM_DATA = f"{_C}/user/{{user_id}}/rooms/{{room_id}}/account_data/{{data_type}}"
_DELETING = (*CLIENT, "unstable/org.matrix.msc3391")  # not described yet: clients look for it under its proposal's name

# `guests` is true of what the specification lists ("Guest Access"), and of what clients cannot do without: asking what
# the server can do, uploading the filter of a sync, following whose keys changed, logging out.
ENDPOINTS = (
    # --- discovery
    # Clients may send a token along; there is nothing here that depends on it.
    Endpoint("versions", "/_matrix/client/versions", ("GET",), routes=(workers.VERSIONS,), auth=Auth.NONE),
    Endpoint("well_known_client", "/.well-known/matrix/client", ("GET",), auth=Auth.NONE),
    Endpoint("well_known_server", "/.well-known/matrix/server", ("GET",), auth=Auth.NONE),
    Endpoint("well_known_support", "/.well-known/matrix/support", ("GET",), auth=Auth.NONE),
    Endpoint("well_known_policy_server", "/.well-known/matrix/policy_server", ("GET",), auth=Auth.NONE),
    Endpoint("capabilities", f"{_C}/capabilities", ("GET",), CLIENT, guests=True),
    Endpoint("turn_server", f"{_C}/voip/turnServer", ("GET",), CLASSIC, (workers.TURN_SERVER,), guests=True),
    # --- sessions
    # Limited where a registration begins, not with each of its steps; so is the password that is forgotten.
    Endpoint("register", f"{_C}/register", ("POST",), REGISTER, (workers.REGISTER,), auth=Auth.SERVICE),
    Endpoint(
        "register_available", f"{_C}/register/available", ("GET",), CLIENT, auth=Auth.NONE, ratelimit="rc_registration"
    ),
    Endpoint(
        "registration_token_validity",
        f"{_C}/register/m.login.registration_token/validity",
        ("GET",),
        ("v1",),
        auth=Auth.NONE,
        ratelimit="rc_registration_token_validity",
    ),
    Endpoint("login_flows", f"{_C}/login", ("GET",), CLASSIC, (workers.LOGIN,), auth=Auth.NONE),
    Endpoint(
        "login", f"{_C}/login", ("POST",), CLASSIC, (workers.LOGIN,), auth=Auth.SERVICE, ratelimit="rc_login.address"
    ),
    # The refresh token in the body is the proof.
    Endpoint("refresh", f"{_C}/refresh", ("POST",), CLIENT, auth=Auth.NONE),
    Endpoint("logout", f"{_C}/logout", ("POST",), CLIENT, guests=True),
    Endpoint("logout_all", f"{_C}/logout/all", ("POST",), CLIENT, guests=True),
    Endpoint("whoami", f"{_C}/account/whoami", ("GET",), CLIENT, guests=True),
    # Who has forgotten the password proves to have an address of the account.
    Endpoint("account_password", f"{_C}/account/password", ("POST",), CLIENT, auth=Auth.OPTIONAL),
    Endpoint("login_page", "/_matrix/static/client/login[/]", ("GET",), auth=Auth.NONE),
    Endpoint("ui_fallback", f"{_C}/auth/{{stage}}/fallback/web", ("GET",), CLIENT, auth=Auth.NONE),
    Endpoint(
        "ui_fallback_submitted",
        f"{_C}/auth/{{stage}}/fallback/web",
        ("POST",),
        CLIENT,
        auth=Auth.NONE,
        ratelimit="rc_login.address",
    ),
    Endpoint("password_policy", f"{_C}/password_policy", ("GET",), CLIENT, auth=Auth.NONE),
    # A password alone is proof enough, for those who have no session any more.
    Endpoint(
        "account_deactivate",
        f"{_C}/account/deactivate",
        ("POST",),
        CLIENT,
        auth=Auth.OPTIONAL,
        ratelimit="rc_login.address",
    ),
    # --- devices
    Endpoint("devices", f"{_C}/devices", ("GET",), CLIENT, guests=True),
    Endpoint("device_get", f"{_C}/devices/{{device_id}}", ("GET",), CLIENT, guests=True),
    Endpoint("device_update", f"{_C}/devices/{{device_id}}", ("PUT",), CLIENT, guests=True),
    Endpoint("device_delete", f"{_C}/devices/{{device_id}}", ("DELETE",), CLIENT),
    Endpoint("delete_devices", f"{_C}/delete_devices", ("POST",), CLIENT),
    # --- profile
    Endpoint(
        "profile_get",
        f"{_C}/profile/{{user_id}}",
        ("GET",),
        CLASSIC,
        (workers.PROFILE,),
        auth=Auth.OPTIONAL,
        guests=True,
    ),
    Endpoint(
        "profile_field_get",
        f"{_C}/profile/{{user_id}}/{{field}}",
        ("GET",),
        CLASSIC,
        (workers.PROFILE,),
        auth=Auth.OPTIONAL,
        guests=True,
    ),
    # A changed name or picture is an event in every room.
    Endpoint(
        "profile_field_set",
        f"{_C}/profile/{{user_id}}/{{field}}",
        ("PUT",),
        CLASSIC,
        (workers.PROFILE,),
        guests=True,
        ratelimit="rc_message",
    ),
    Endpoint(
        "profile_field_delete",
        f"{_C}/profile/{{user_id}}/{{field}}",
        ("DELETE",),
        CLASSIC,
        (workers.PROFILE,),
        guests=True,
        ratelimit="rc_message",
    ),
    Endpoint(
        "user_directory_search",
        f"{_C}/user_directory/search",
        ("POST",),
        CLASSIC,
        (workers.USER_DIRECTORY,),
        ratelimit="rc_user_directory",
    ),
    # --- presence
    Endpoint(
        "presence_get",
        f"{_C}/presence/{{user_id}}/status",
        ("GET",),
        CLASSIC,
        (workers.PRESENCE_STATUS,),
    ),
    Endpoint(
        "presence_set",
        f"{_C}/presence/{{user_id}}/status",
        ("PUT",),
        CLASSIC,
        (workers.PRESENCE_STATUS,),
        ratelimit="rc_presence.per_user",
    ),
    # --- account data, filters
    Endpoint("account_data_get", _DATA, ("GET",), CLIENT),
    Endpoint(
        "account_data_set",
        _DATA,
        ("PUT",),
        CLIENT,
        max_body=MIB,
    ),
    Endpoint(
        "room_account_data_get",
        _ROOM_DATA,
        ("GET",),
        CLIENT,
    ),
    Endpoint(
        "room_account_data_set",
        _ROOM_DATA,
        ("PUT",),
        CLIENT,
        max_body=MIB,
    ),
    Endpoint("account_data_delete", _DATA, ("DELETE",), _DELETING),
    Endpoint("room_account_data_delete", _ROOM_DATA, ("DELETE",), _DELETING),
    Endpoint("room_tags", f"{_C}/user/{{user_id}}/rooms/{{room_id}}/tags", ("GET",), CLIENT),
    Endpoint("room_tag_set", f"{_C}/user/{{user_id}}/rooms/{{room_id}}/tags/{{tag}}", ("PUT",), CLIENT),
    Endpoint("room_tag_delete", f"{_C}/user/{{user_id}}/rooms/{{room_id}}/tags/{{tag}}", ("DELETE",), CLIENT),
    Endpoint("filter_create", f"{_C}/user/{{user_id}}/filter", ("POST",), CLIENT, guests=True),
    Endpoint(
        "openid_request_token", f"{_C}/user/{{user_id}}/openid/request_token", ("POST",), ("r0", "unstable", "v3")
    ),
    Endpoint("filter_get", f"{_C}/user/{{user_id}}/filter/{{filter_id}}", ("GET",), CLIENT, guests=True),
)

_RULE = f"{_C}/pushrules/global/{{kind}}/{{rule_id}}"
_READ = (workers.PUSH_RULES,)

PUSH = (
    # Reading may be anybody's work, changing is the main process's.
    Endpoint("push_rules", f"{_C}/pushrules/", ("GET",), CLASSIC, _READ),
    Endpoint("push_rules_global", f"{_C}/pushrules/global[/]", ("GET",), CLASSIC, _READ),
    Endpoint("push_rule_get", _RULE, ("GET",), CLASSIC, _READ),
    Endpoint("push_rule_set", _RULE, ("PUT",), CLASSIC),
    Endpoint("push_rule_delete", _RULE, ("DELETE",), CLASSIC),
    Endpoint("push_rule_enabled_get", f"{_RULE}/enabled", ("GET",), CLASSIC, _READ),
    Endpoint("push_rule_enabled_set", f"{_RULE}/enabled", ("PUT",), CLASSIC),
    Endpoint("push_rule_actions_get", f"{_RULE}/actions", ("GET",), CLASSIC, _READ),
    Endpoint("push_rule_actions_set", f"{_RULE}/actions", ("PUT",), CLASSIC),
    Endpoint("pushers", f"{_C}/pushers", ("GET",), CLIENT),
    Endpoint("pusher_set", f"{_C}/pushers/set", ("POST",), CLIENT),
)
