"""Encryption end to end: the keys of devices and users, and messages from device to device."""

from synapse.api.route_table import workers
from synapse.api.route_table.types import CLASSIC, MIB, Endpoint

_SINCE_R0 = ("r0", "unstable", "v3")
_C = "/_matrix/client/{version}"
_DEHYDRATED = "/_matrix/client/{version}/dehydrated_device"
_MSC3814 = ("unstable/org.matrix.msc3814.v1",)

ENDPOINTS = (
    Endpoint(
        "keys_upload",
        f"{_C}/keys/upload[/{{device_id}}]",
        ("POST",),
        CLASSIC,
        (workers.KEYS_UPLOAD,),
        guests=True,
        max_body=MIB,
    ),
    Endpoint(
        "keys_query", f"{_C}/keys/query", ("POST",), CLASSIC, (workers.KEYS_QUERY,), guests=True, max_body=4 * MIB
    ),
    Endpoint("keys_changes", f"{_C}/keys/changes", ("GET",), CLASSIC, (workers.KEYS_CHANGES,), guests=True),
    Endpoint("keys_claim", f"{_C}/keys/claim", ("POST",), CLASSIC, guests=True, max_body=4 * MIB),
    Endpoint("keys_device_signing_upload", f"{_C}/keys/device_signing/upload", ("POST",), _SINCE_R0),
    Endpoint("keys_signatures_upload", f"{_C}/keys/signatures/upload", ("POST",), _SINCE_R0, max_body=MIB),
    # One ciphertext for every device of every member of a large room.
    Endpoint(
        "send_to_device",
        f"{_C}/sendToDevice/{{event_type}}/{{txn_id}}",
        ("PUT",),
        CLASSIC,
        guests=True,
        max_body=8 * MIB,
    ),
    # Not described yet: clients look for it under its proposal's name.
    Endpoint("dehydrated_device_put", _DEHYDRATED, ("PUT",), _MSC3814, max_body=MIB),
    Endpoint("dehydrated_device_get", _DEHYDRATED, ("GET",), _MSC3814),
    Endpoint("dehydrated_device_delete", _DEHYDRATED, ("DELETE",), _MSC3814),
    Endpoint("dehydrated_device_events", f"{_DEHYDRATED}/{{device_id}}/events", ("GET", "POST"), _MSC3814),
)
