"""The proxy plan in nginx's words: `map`s that choose a backend, `upstream`s, one `server`. For the `http` context.

Only directives of plain nginx (1.18 or later) are used; no modules, no scripting.

How it works: nginx's `location` sees the decoded path, in which the %2F of a state key has become a slash. Requests are
therefore sorted by a `map` over the method and the path as sent, whose expressions are those of the route table.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from synapse.api.routes import Affinity
from synapse.synctl.proxy import Backend, Plan, Rule

_MIB = 1 << 20

_PATH = """
# The path as the client sent it, without the query.
map $request_uri $synapse_path {
    "~^(?<synapse_raw_path>[^?]*)" $synapse_raw_path;
}
"""

# Characters that a client may or may not percent-encode are left out of the keys, so that both spellings hash alike.
# What stands in queries is secret: access tokens of old clients, tokens of mails' links and of single sign-on.
_LOG = """
# What is logged of the path: neither the addresses nor the registration tokens that administrators ask about.
map $synapse_path $synapse_logged_path {
    default $synapse_path;
    "~^(?<synapse_admin_path>/_synapse/admin/v1/(threepid/[^/]+/users|registration_tokens)/)." $synapse_admin_path;
}

# The page that a request came from, without the query.
map $http_referer $synapse_referrer {
    default                             -;
    "~^(?<synapse_raw_referrer>[^?#]+)" $synapse_raw_referrer;
}

# The format `combined`, but without queries, as they hold access tokens and other secrets; and who was asked, what each
# answered, and how long it took.
log_format synapse '$remote_addr - $remote_user [$time_local] "$request_method $synapse_logged_path $server_protocol" '
                   '$status $body_bytes_sent "$synapse_referrer" "$http_user_agent" '
                   '"$upstream_addr" "$upstream_status" $request_time';
"""

_USER = """
# The access token, from the header or from the query.
map $http_authorization $synapse_token {
    default                                $arg_access_token;
    "~*^Bearer +(?<synapse_bearer>[^ ]+)"  $synapse_bearer;
}

# Whose request it is. Tokens are syt_<localpart in base64>_<random>_<checksum>; what a client may percent-encode of it
# (underscore, plus and slash) is skipped, so that both spellings give the same key. Other tokens count as a whole.
map $synapse_token $synapse_user {
    default  $synapse_token;
    ""       $remote_addr;
    "~*^syt(?:_|%5f)([a-z0-9]*)(?:[+/-]|%2b|%2f)?([a-z0-9]*)(?:[+/-]|%2b|%2f)?([a-z0-9]*)" "$1.$2.$3";
}
"""

_ROOM = """
# Which room it is about: its id up to the first character that a client may percent-encode.
map $synapse_path $synapse_room {
    default                                                   $synapse_path;
    "~/rooms/(?:!|%21)(?<synapse_room_id>[A-Za-z0-9._~-]+)"  $synapse_room_id;
}
"""

_PROXY = """
    # A body is passed on when it has arrived completely; uploads are passed on as they come.
    client_max_body_size {body};
    client_body_buffer_size 256k;

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;

    # Long-polling /sync waits as long as its client says; joining a large room through federation takes minutes.
    proxy_read_timeout 600s;
    proxy_connect_timeout 5s;
    # Another instance is asked only if the first could not be reached or broke off, and never a second time for a POST.
    proxy_next_upstream error timeout;
    proxy_next_upstream_tries 3;
    proxy_buffer_size 16k;
    proxy_buffers 16 16k;
    proxy_max_temp_file_size 0;

    location / {{
        proxy_pass http://$synapse_backend;
    }}

    location ~ ^/_matrix/(media|client/v1/media)/ {{
        proxy_request_buffering off;
        proxy_pass http://$synapse_backend;
    }}

    # What nginx itself has to refuse.
{refusals}"""

_USUAL_LOGS: Final = "/var/log/nginx/synapse"

# nginx quotes whole requests in its error log, and no directive changes that.
_LOGS = """
    access_log {logs}.access.log synapse buffer=32k flush=5s;
    # Lines below `alert` quote requests with their queries. Instances that do not answer are in the access log.
    error_log {logs}.error.log alert;
"""


class _Refusal(NamedTuple):
    """What nginx itself has to refuse, in the form that Matrix clients understand.

    `statuses` are those that nginx means. A request that cannot be read has no path with which to enter a named place
    (`@…`); such places are ordinary ones that only nginx itself enters.
    """

    statuses: str
    place: str
    status: int
    errcode: str
    sentence: str

    def render(self) -> str:
        """The lines for the `server` block."""
        is_named = self.place.startswith("@")
        lines = (
            f"error_page {self.statuses} {self.place};",
            f"location {self.place} {{" if is_named else f"location = {self.place} {{",
            *(() if is_named else ("    internal;",)),
            "    default_type application/json;",
            "    add_header Access-Control-Allow-Origin * always;",
            f"""    return {self.status} '{{"errcode":"{self.errcode}","error":"{self.sentence}"}}';""",
            "}",
        )
        return "".join(f"    {line}\n" for line in lines)


_UNREADABLE: Final = "The request is not valid HTTP; see its path and headers."
_LONG_PATH: Final = "The path and the query are longer than this server accepts."
_REFUSALS: Final = (
    _Refusal("413", "@synapse_too_large", 413, "M_TOO_LARGE", "The body is larger than this server accepts."),
    _Refusal("400", "/_synapse_front/unreadable", 400, "M_UNRECOGNIZED", _UNREADABLE),
    _Refusal("414", "/_synapse_front/long_path", 414, "M_TOO_LARGE", _LONG_PATH),
    # 494 is nginx's own number for headers that are too long.
    _Refusal("494 =431", "/_synapse_front/long_header", 431, "M_TOO_LARGE", "A header is longer than is accepted."),
    _Refusal("502 504", "@synapse_unavailable", 502, "M_UNKNOWN", "The server is not available; try again."),
)


class Certificate(NamedTuple):
    """The files of a certificate chain and its key, in PEM."""

    chain: str
    key: str


def render(
    plan: Plan,
    *,
    listen: tuple[str, ...] = (),
    logs: str | None = None,
    certificate: Certificate | None = None,
    command: str = "synctl nginx",
) -> str:
    """The text of a file to include in nginx's `http` block.

    :param listen: addresses (`8008`, `127.0.0.1:8008`, `unix:/path`, `8448 ssl`); by default port 80, and 443 and 8448
        with a certificate, commented without.
    :param logs: what the paths of the logs begin with (`/var/log/nginx/synapse`, the default).
    """
    parts = [_head(plan, command), _PATH, _LOG]
    if Affinity.USER in plan.affinities:
        parts.append(_USER)
    if Affinity.ROOM in plan.affinities:
        parts.append(_ROOM)
    parts.append(_backend_map(plan))
    parts.extend(_upstream(backend) for backend in plan.backends)
    refusals = "".join(refusal.render() for refusal in _REFUSALS)
    body = _PROXY.format(body=f"{-(-plan.max_body // _MIB)}m", refusals=refusals)
    parts.append(f"\nserver {{\n{_listen(plan, listen, certificate)}{_LOGS.format(logs=logs or _USUAL_LOGS)}{body}}}\n")
    return "".join(parts)


def _head(plan: Plan, command: str) -> str:
    remarks = "".join(f"# Note: {remark}\n" for remark in plan.remarks)
    return (
        f"# nginx for {plan.server_name}, for the http context. Written by `{command}` from the route table and the\n"
        f"# worker files; write it again after changing them.\n{remarks}"
    )


def _backend_map(plan: Plan) -> str:
    lines = [f"    {_expression(rule)} {rule.backend};\n" for rule in plan.rules]
    return (
        "\n# Who serves what. The first expression that holds decides; all else is the main process's.\n"
        'map "$request_method $synapse_path" $synapse_backend {\n'
        f"    default {plan.main};\n{''.join(lines)}}}\n"
    )


def _expression(rule: Rule) -> str:
    methods = f"({'|'.join(rule.methods)})" if rule.methods else "[A-Z]+"
    return f'"~^{methods} {rule.regex.removeprefix("^")}"'


_BALANCE = {
    Affinity.USER: "    # All requests of one user go to one instance.\n    hash $synapse_user consistent;\n",
    Affinity.ROOM: "    # All requests about one room go to one instance.\n    hash $synapse_room consistent;\n",
    Affinity.ONE: "    # Exactly one instance may serve these.\n",
    Affinity.NONE: "",
}


def _upstream(backend: Backend) -> str:
    servers = "".join(
        f"    server {'unix:' if server.is_socket else ''}{server.address};  # {server.name}\n"
        for server in backend.servers
    )
    keepalive = "    keepalive 64;\n    keepalive_timeout 30s;\n"
    return f"\nupstream {backend.name} {{\n{_BALANCE[backend.affinity]}{servers}{keepalive}}}\n"


def _listen(plan: Plan, listen: tuple[str, ...], certificate: Certificate | None) -> str:
    if certificate is not None:
        files = f"    ssl_certificate {certificate.chain};\n    ssl_certificate_key {certificate.key};\n"
    else:
        files = ""
    if listen:
        addresses = "".join(f"    listen {address};\n" for address in listen)
    else:
        mark = "# " if certificate is None else ""
        tls = "".join(f"    {mark}listen {address} ssl;\n" for address in ("443", "[::]:443", "8448", "[::]:8448"))
        comment = "    # With a certificate, for clients (443) and other servers (8448):\n"
        addresses = f"    listen 80;\n    listen [::]:80;\n{comment}{tls}"
        files = files or (
            f"    # ssl_certificate /etc/ssl/{plan.server_name}.crt;\n"
            f"    # ssl_certificate_key /etc/ssl/{plan.server_name}.key;\n"
        )
    return f"{addresses}{files}    server_name {plan.server_name};\n"


def complete(body: str, *, directory: str, temporary: str, user: str | None = None) -> str:
    """A whole nginx.conf around `render`'s text, for an nginx of its own whose files are all in `directory`.

    :param temporary: an existing directory that nginx's workers can write to.
    :param user: what workers run as, where nginx is started as root: `nobody nogroup`.
    """
    paths = "".join(
        f"    {kind}_temp_path {temporary}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    inner = "".join(f"    {line}".rstrip() + "\n" for line in body.splitlines())
    return (
        (f"user {user};\n" if user else "")
        + "worker_processes auto;\nworker_rlimit_nofile 8192;\npcre_jit on;\n"
        + f"pid {directory}/nginx.pid;\nerror_log {directory}/nginx.error.log;\n"
        + "events {\n    worker_connections 4096;\n}\n"
        + f"http {{\n{paths}\n{inner}}}\n"
    )
