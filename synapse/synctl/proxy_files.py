"""From configuration files to a proxy's configuration: reads the cluster, plans, and has the plan written down."""

from __future__ import annotations

import grp
import os
import pwd
import zlib
from collections.abc import Sequence

from synapse.api.routes import App
from synapse.synctl import haproxy, nginx
from synapse.synctl.cluster import Cluster, Process, read_cluster
from synapse.synctl.proxy import Instance, Plan, plan


def render(
    kind: str,
    config_file: str,
    *,
    directory: str | None = None,
    workers: Sequence[str] = (),
    listen: tuple[str, ...] = (),
    logs: str | None = None,
    standalone: str | None = None,
    certificate: str | None = None,
    certificate_key: str | None = None,
) -> str:
    """The text of a configuration.

    :param kind: `nginx` or `haproxy`.
    :param logs: for nginx: what the paths of its logs begin with.
    :param standalone: for nginx: the directory of an nginx that runs for this server alone.
    :param certificate: for nginx: the file of a certificate chain, for addresses with `ssl`.
    :param certificate_key: its key.
    Raises `ConfigError` or `ValueError` with a sentence.
    """
    cluster = read_cluster(config_file, directory=directory, workers=workers, checked=False)
    found = plan_for(cluster)
    if kind == "haproxy":
        if standalone is not None:
            raise ValueError("--standalone is for nginx; haproxy's output is a complete file but for your own defaults")
        if logs is not None:
            raise ValueError("--logs is for nginx; haproxy logs as its `global` and `defaults` sections say")
        if certificate is not None or certificate_key is not None:
            raise ValueError("--certificate is for nginx; for haproxy, write --listen '8448 ssl crt FILE'")
        return haproxy.render(found, listen=listen)
    tls = _certificate(certificate, certificate_key)
    if tls is None and any("ssl" in address.split()[1:] for address in listen):
        raise ValueError("--listen with ssl needs --certificate and --certificate-key")
    if standalone is None:
        return nginx.render(found, listen=listen, logs=logs and os.path.abspath(logs), certificate=tls)
    place = os.path.abspath(logs or os.path.join(standalone, "nginx"))
    text = nginx.render(found, listen=listen, logs=place, certificate=tls)
    return _standalone(text, os.path.abspath(standalone))


def _certificate(chain: str | None, key: str | None) -> nginx.Certificate | None:
    if (chain is None) != (key is None):
        raise ValueError("--certificate and --certificate-key go together: a certificate is no use without its key")
    return None if chain is None or key is None else nginx.Certificate(os.path.abspath(chain), os.path.abspath(key))


def plan_for(cluster: Cluster) -> Plan:
    """The plan for a cluster as its files describe it, running or not."""
    shared = cluster.shared
    main = Instance("main", App.HOMESERVER, (cluster.main.config if cluster.main else shared).listeners)
    return plan(
        main,
        [_instance(process) for process in cluster.workers],
        server_name=_host(cluster),
        use_presence=shared.use_presence,
        max_upload_size=shared.media.max_upload_size,
    )


def _instance(process: Process) -> Instance:
    return Instance(process.name, App(process.app), process.config.listeners)


def _host(cluster: Cluster) -> str:
    """The host that clients ask for: public_baseurl's, without scheme, port and path."""
    host = cluster.shared.client_baseurl.partition("://")[2].partition("/")[0]
    return host if host.startswith("[") else host.partition(":")[0]


def _standalone(text: str, directory: str) -> str:
    os.makedirs(directory, exist_ok=True)
    temporary = _temporary(directory)
    os.makedirs(temporary, mode=0o755, exist_ok=True)
    return nginx.complete(text, directory=directory, temporary=temporary, user=_nobody() if os.geteuid() == 0 else None)


def _temporary(directory: str) -> str:
    """Where nginx keeps large bodies. Started as root, its workers are nobody, who may not get into `directory`."""
    if os.geteuid() != 0:
        return os.path.join(directory, "temporary")
    return f"/run/synapse-nginx-{zlib.crc32(directory.encode()):08x}"


def _nobody() -> str:
    try:
        account = pwd.getpwnam("nobody")
        return f"{account.pw_name} {grp.getgrgid(account.pw_gid).gr_name}"
    except KeyError:
        return "root"
