"""What administrators do with accounts, and with the devices of their users."""

from synapse.api.route_table.types import Auth, Endpoint

_V1 = "/_synapse/admin/v1"
_USER = "/_synapse/admin/v2/users/{user_id}"
_DEVICE = f"{_USER}/devices/{{device_id}}"


def _admin(name: str, path: str, method: str) -> Endpoint:
    return Endpoint(name, path, (method,), auth=Auth.ADMIN)


ENDPOINTS = (
    _admin("admin_users", "/_synapse/admin/v2/users", "GET"),
    # The same, but deactivated accounts are among the others, or shown alone, or left out.
    _admin("admin_users_v3", "/_synapse/admin/v3/users", "GET"),
    _admin("admin_user_get", _USER, "GET"),
    _admin("admin_user_put", _USER, "PUT"),
    _admin("admin_user_rank_get", f"{_V1}/users/{{user_id}}/admin", "GET"),
    _admin("admin_user_rank_set", f"{_V1}/users/{{user_id}}/admin", "PUT"),
    _admin("admin_user_login", f"{_V1}/users/{{user_id}}/login", "POST"),
    _admin("admin_reset_password", f"{_V1}/reset_password/{{user_id}}", "POST"),
    _admin("admin_user_devices", f"{_USER}/devices", "GET"),
    _admin("admin_user_device_new", f"{_USER}/devices", "POST"),
    _admin("admin_user_device_get", _DEVICE, "GET"),
    _admin("admin_user_device_set", _DEVICE, "PUT"),
    _admin("admin_user_device_delete", _DEVICE, "DELETE"),
    _admin("admin_user_delete_devices", f"{_USER}/delete_devices", "POST"),
)
