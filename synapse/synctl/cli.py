"""The command line of synctl: what users type, and where a missing homeserver.yaml is looked for.

    synctl [-w FILE]… [-a DIR] [--no-daemonize] start|stop|restart|status [homeserver.yaml]
    synctl [-a DIR] [-o FILE] nginx|haproxy [homeserver.yaml]

Options may stand before or after the action.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator, Sequence

from synapse.config import ConfigError
from synapse.storage.errors import DatabaseProblem

_DEFAULT_CONFIG = "homeserver.yaml"
_PROCESS_ACTIONS = ("start", "stop", "restart", "status")
_PROXY_ACTIONS = ("nginx", "haproxy")
_PROXY_FILES = ("output", "logs", "standalone", "certificate", "certificate_key")
_PROXY_OPTIONS = (*_PROXY_FILES, "listen")

_DESCRIPTION = """\
Starts, stops, restarts and inspects the processes of a Synapse server, and writes proxy configurations for them.

Without -w or -a it acts on the main process alone. With -a DIR it acts on every worker file of that directory, and on
the main process if one of them says `worker_app: synapse.app.homeserver`.
"""

_EPILOG = """\
Exit status: 0 if all is well, 1 if something failed (a sentence says what), 2 for a wrong command line;
status returns 3 if a process does not run or does not serve.
"""


def console() -> None:
    """The console script."""
    from synapse.app._title import make_room

    make_room()  # for the names of the processes that are forked from this one
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Carry out a command line; returns the exit status."""
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)
    if options.action in _PROCESS_ACTIONS and any(getattr(options, name) for name in _PROXY_OPTIONS):
        of_proxies = f"-o, --listen, --logs, --standalone and --certificate are for {' and '.join(_PROXY_ACTIONS)}"
        parser.error(f"{of_proxies}, not for {options.action}")
    try:
        _go_to_config(options)
        return _proxy(options) if options.action in _PROXY_ACTIONS else _act(options)
    except (ConfigError, DatabaseProblem, ValueError) as error:
        print(f"synctl: {error}", file=sys.stderr)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"synctl: {place}{error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("synctl: interrupted; what was started goes on (see synctl status)", file=sys.stderr)
        return 130
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "synctl", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=(*_PROCESS_ACTIONS, *_PROXY_ACTIONS))
    parser.add_argument(
        "configfile",
        nargs="?",
        default=_DEFAULT_CONFIG,
        help="the shared configuration (default: homeserver.yaml here, or else beside the directory of the workers)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("-w", "--worker", metavar="FILE", action="append", default=[], help="act on this worker")
    which.add_argument("-a", "--all-processes", metavar="DIR", help="act on all worker files in this directory")
    parser.add_argument(
        "--no-daemonize", action="store_true", help="start: stay in the foreground, stop everything at the end"
    )
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=120.0, help="how long a process may take until it serves"
    )
    proxy = parser.add_argument_group("nginx and haproxy")
    proxy.add_argument("-o", "--output", metavar="FILE", help="write to a file, not to stdout")
    proxy.add_argument(
        "--listen", metavar="ADDRESS", action="append", default=[], help="where the proxy listens: 8008, 127.0.0.1:8008"
    )
    proxy.add_argument(
        "--logs",
        metavar="PREFIX",
        help="nginx: what the paths of its logs begin with (default: /var/log/nginx/synapse; --standalone: DIR/nginx)",
    )
    proxy.add_argument(
        "--standalone",
        metavar="DIR",
        help="nginx: a complete nginx.conf whose pid file, logs and temporary files are in DIR",
    )
    proxy.add_argument(
        "--certificate", metavar="FILE", help="nginx: a certificate chain (PEM), for addresses like --listen '8448 ssl'"
    )
    proxy.add_argument("--certificate-key", metavar="FILE", help="nginx: the certificate's key")
    return parser


def _go_to_config(options: argparse.Namespace) -> None:
    """With the default name, and none here, use the homeserver.yaml near the worker files, as if called from there."""
    if options.configfile != _DEFAULT_CONFIG or _is_shared(_DEFAULT_CONFIG):
        return
    given = options.all_processes or next(iter(options.worker), None)
    if given is None:
        return
    place = os.path.dirname(os.path.abspath(given))
    for directory in (os.path.dirname(place), place):
        if _is_shared(os.path.join(directory, _DEFAULT_CONFIG)):
            for name in ("all_processes", *_PROXY_FILES):
                value = getattr(options, name)
                setattr(options, name, value and os.path.abspath(value))
            options.worker = [os.path.abspath(file) for file in options.worker]
            os.chdir(directory)
            return


def _is_shared(path: str) -> bool:
    """Whether this is a shared configuration, and not the main process's file among those of the workers."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return not any(line.startswith("worker_app:") for line in file)
    except OSError:
        return False


def _act(options: argparse.Namespace) -> int:
    from synapse.synctl.actions import Actions
    from synapse.synctl.cluster import read_cluster

    cluster = read_cluster(
        options.configfile,
        workers=options.worker,
        directory=options.all_processes,
        checked=options.action in ("start", "restart"),
    )
    actions = Actions(cluster, _say, seconds=options.timeout)
    if options.action == "status":
        return actions.status()
    if options.action != "stop":
        for warning in dict.fromkeys(warning for process in cluster.processes for warning in process.config.warnings):
            _say(f"Warning: {warning}")
    if options.action == "start" and options.no_daemonize:
        return actions.run_in_foreground()
    with _alone(cluster.file):
        return {"start": actions.start, "stop": actions.stop, "restart": actions.restart}[options.action]()


@contextlib.contextmanager
def _alone(config_file: str) -> Iterator[None]:
    """One synctl at a time changes the processes of a server; a second one waits for its turn."""
    with open(config_file, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("Another synctl is at work on this server; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _proxy(options: argparse.Namespace) -> int:
    from synapse.synctl import proxy_files

    text = proxy_files.render(
        options.action,
        options.configfile,
        directory=options.all_processes,
        workers=options.worker,
        listen=tuple(options.listen),
        logs=options.logs,
        standalone=options.standalone,
        certificate=options.certificate,
        certificate_key=options.certificate_key,
    )
    if options.output is None:
        sys.stdout.write(text)
        return 0
    with open(options.output, "w", encoding="utf-8") as file:
        file.write(text)
    return 0


def _say(line: str) -> None:
    print(line, flush=True)
