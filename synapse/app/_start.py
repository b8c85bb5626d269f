"""The start of a process, from its command line to its reactor; every `synapse.app.NAME` is this.

    main(argv, app)     a process's whole life; returns its exit status
    preload()           the modules that every process needs, and nothing else: for one image that is forked into many

Whatever is wrong before the process serves is one sentence on stderr and status 1. The reactor is imported after every
fork; so nothing here imports it, or anything that does, at module level.
"""

from __future__ import annotations

import functools
import gc
import logging
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from synapse.app import _arguments
from synapse.app._daemon import daemonize, replaced_process
from synapse.app._errors import as_sentence
from synapse.app._notify import notify_status
from synapse.app._title import set_title
from synapse.config import Config, ConfigError, load

if TYPE_CHECKING:
    import argparse
    from typing import Any

    from synapse.app._process import Process, Services

logger = logging.getLogger(__name__)

# What every process uses sooner or later. Loaded once and forked, they cost their memory once.
_COMMON: Final = (
    "psycopg2",
    "setproctitle",
    *(
        f"synapse.app._{part}"
        for part in (
            *("accounts", "conduct", "duties", "encryption", "extras", "finding", "homeserver", "process"),
            *("replication", "rooms", "services", "sessions"),
        )
    ),
    "synapse.handlers.app_service_identity",
    "synapse.handlers.auth",
    "synapse.handlers.consent",
    "synapse.handlers.notices_room",
    "synapse.handlers.user_ips",
    "synapse.http.ratelimit",
    "synapse.http.site",
    "synapse.logging.setup",
    "synapse.replication.client",
    "synapse.replication.contacts",
    "synapse.replication.notifier",
    "synapse.rest.operation",
    "synapse.rest.registry",
    "synapse.storage.access_tokens",
    "synapse.storage.database",
    "synapse.storage.prepare",
    "synapse.storage.server_notices",
    "synapse.storage.users",
    "synapse.util.repeating",
)


def preload() -> None:
    """Import what processes have in common, without reactor, threads or open files."""
    import importlib

    from synapse.app import _reactor

    was_enabled = gc.isenabled()
    gc.disable()  # nothing of what is loaded now is garbage
    try:
        _reactor.load()
        for name in _COMMON:
            importlib.import_module(name)
    finally:
        if was_enabled:
            gc.enable()


def main(argv: Sequence[str], app: str | None = None) -> int:
    """A process's whole life. Returns the exit status.

    :param argv: the arguments after the program's name.
    :param app: the application that was asked for, `synapse.app.NAME`; by default the one that the files name.
    """
    try:
        arguments = _arguments.parse(argv, app or "synapse.app.homeserver")
        if _arguments.run_command(arguments):
            return 0
        config = load(arguments.config_path)
        _check_application(config, app)
        _check_server_name(config, arguments)
        return _run(config, config.daemonize if arguments.daemonize is None else arguments.daemonize)
    except Exception as error:
        sentence = as_sentence(error)
        if sentence is None:
            raise
        print(sentence, file=sys.stderr)
        return 1


def _check_application(config: Config, app: str | None) -> None:
    if app is None or app == config.app:
        return
    if config.workers.worker_app is None:
        remedy = f"name the worker's file too, with a second -c, or add `worker_app: {app}` to it"
        raise ConfigError(config.place("worker_app"), "worker_app", f"is missing, and this is {app}", remedy)
    remedy = f"start it with python -m {config.app}"
    raise ConfigError(config.place("worker_app"), "worker_app", f"is {config.app}, and this is {app}", remedy)


def _check_server_name(config: Config, arguments: argparse.Namespace) -> None:
    name = arguments.server_name
    if name is not None and name != config.server.server_name:
        problem = f"is {config.server.server_name}, and the command line says {name}"
        remedy = "leave --server-name away; it is for --generate-config"
        raise ConfigError(config.place("server_name"), "server_name", problem, remedy)


def _run(config: Config, background: bool) -> int:
    """Serve until told to stop. Raises what `as_sentence` knows, before the reactor runs."""
    preload()
    from synapse.app._process import Process

    _raise_file_limit(config.server.soft_file_limit)
    process = Process(config, replaces=replaced_process())
    try:
        process.check()  # before going to the background, where nobody may be listening to us
        return _serve(process, config, background)
    finally:
        process.close()


def _serve(process: Process, config: Config, background: bool) -> int:
    daemon = daemonize() if background else None
    set_title(config.app, config.files)
    _set_up_logging(config)
    for warning in config.warnings:
        logger.warning("%s", warning)
        if daemon is not None or config.log_config is not None:
            print(f"Warning: {warning}", file=sys.stderr)
    _tune_garbage_collection(config)
    _prepare_database(config)
    build = functools.partial(_services, config)
    return process.run(build, daemon.ready if daemon else lambda: None)


def _prepare_database(config: Config) -> None:
    """Start the embedded server, make or migrate the tables; a worker waits for them. Raises `DatabaseProblem`."""
    from synapse.storage.prepare import prepare

    notify_status("preparing the database")
    prepare(config.database, config.server.server_name, main=config.is_main)


def _services(config: Config, reactor: Any, give_up: Callable[[Exception], None]) -> Services:
    from synapse.app._homeserver import Homeserver
    from synapse.app._services import HomeserverServices
    from synapse.app.applications import application_of

    return HomeserverServices(Homeserver(config, application_of(config), reactor), give_up)


def _raise_file_limit(wanted: int) -> None:
    """Allow as many open files as asked for, or as the system lets us; it is connections that need them."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if wanted and (hard == resource.RLIM_INFINITY or wanted <= hard):
        hard = wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def _set_up_logging(config: Config) -> None:
    from synapse.logging import setup

    setup.configure(config.log_config, "" if config.is_main else config.instance_name)
    setup.follow_twisted()


def _tune_garbage_collection(config: Config) -> None:
    """What was loaded so far stays; the collector need not look at it, nor touch pages that a fork shares."""
    gc.freeze()
    gc.set_threshold(*config.server.gc_thresholds)
