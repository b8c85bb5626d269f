"""The proxy plan in haproxy's words (2.6 or later): one frontend, a backend per group of instances.

haproxy's `path` is the path as the client sent it, so the route table's expressions apply as they are.
"""

from __future__ import annotations

from synapse.api.routes import Affinity
from synapse.synctl.proxy import Backend, Plan, Rule

_USER = """
    # Whose request it is, for choosing the synchrotron: the user inside the access token, which is
    # syt_<localpart in base64>_<random>_<checksum>; another token as a whole; without one, the address.
    http-request set-var(txn.synapse_token) url_param(access_token),url_dec
    http-request set-var(txn.synapse_token) req.hdr(authorization),word(2,' ') if { req.hdr(authorization) -m found }
    http-request set-var(txn.synapse_user) src
    http-request set-var(txn.synapse_user) var(txn.synapse_token) if { var(txn.synapse_token) -m found }
    http-request set-var(txn.synapse_user) var(txn.synapse_token),field(2,_) if { var(txn.synapse_token) -m beg syt_ }
"""

_ROOM = """
    # Which room a request for /rooms/ROOM/messages is about.
    http-request set-var(txn.synapse_room) path,url_dec,field(-2,/)
"""

_BALANCE = {
    Affinity.USER: "    balance hash var(txn.synapse_user)\n    hash-type consistent\n",
    Affinity.ROOM: "    balance hash var(txn.synapse_room)\n    hash-type consistent\n",
    Affinity.ONE: "    # Exactly one instance may serve these.\n",
    Affinity.NONE: "    balance roundrobin\n",
}


def render(plan: Plan, *, listen: tuple[str, ...] = (), command: str = "synctl haproxy") -> str:
    """The text of a haproxy configuration without a `global` section.

    :param listen: addresses to bind (`8008`, `127.0.0.1:8008`); port 80 and commented TLS ports by default.
    """
    parts = [
        _head(plan, command),
        "\nfrontend synapse\n    mode http\n    timeout client 620s\n",
        _bind(plan, listen),
        "    http-request set-header X-Forwarded-For %[src]\n",
        "    http-request set-header X-Forwarded-Proto http if !{ ssl_fc }\n",
        "    http-request set-header X-Forwarded-Proto https if { ssl_fc }\n",
        f"    http-request deny deny_status 413 if {{ req.hdr_val(content-length) gt {plan.max_body} }}\n",
        _USER if Affinity.USER in plan.affinities else "",
        _ROOM if Affinity.ROOM in plan.affinities else "",
        "\n    # Who serves what. The first expression that holds decides; all else is the main process's.\n",
        *(_use(rule) for rule in plan.rules),
        f"    default_backend {plan.main}\n",
        *(_backend(backend) for backend in plan.backends),
    ]
    return "".join(parts)


def _head(plan: Plan, command: str) -> str:
    remarks = "".join(f"# Note: {remark}\n" for remark in plan.remarks)
    return (
        f"# haproxy for {plan.server_name}. Written by `{command}` from the route table and the worker files;\n"
        f"# write it again after changing them.\n{remarks}"
    )


def _bind(plan: Plan, listen: tuple[str, ...]) -> str:
    if listen:
        return "".join(f"    bind {address if ':' in address else f':{address}'}\n" for address in listen)
    return (
        "    bind :80\n    bind :::80 v6only\n"
        "    # With a certificate, for clients (443) and other servers (8448):\n"
        f"    # bind :443 ssl crt /etc/haproxy/{plan.server_name}.pem\n"
        f"    # bind :8448 ssl crt /etc/haproxy/{plan.server_name}.pem\n"
    )


def _use(rule: Rule) -> str:
    methods = f"{{ method {' '.join(rule.methods)} }} " if rule.methods else ""
    return f"    use_backend {rule.backend} if {methods}{{ path_reg '{rule.regex}' }}\n"


def _backend(backend: Backend) -> str:
    servers = "".join(
        f"    server {server.name} {'unix@' if server.is_socket else ''}{server.address}\n"
        for server in backend.servers
    )
    return (
        f"\nbackend {backend.name}\n    mode http\n    timeout connect 5s\n    timeout server 600s\n"
        f"{_BALANCE[backend.affinity]}"
        "    # Another instance is asked only if the first could not be reached at all.\n"
        f"    retries 3\n    retry-on conn-failure\n    option redispatch\n{servers}"
    )
