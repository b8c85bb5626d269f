"""The command line of a process, and the two commands that only write files."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from synapse.config import ConfigError

_COMMAND_LINE = "the command line"


def parse(argv: Sequence[str], app: str) -> argparse.Namespace:
    """The arguments of `python -m synapse.app.NAME`."""
    parser = argparse.ArgumentParser(prog=f"python -m {app}", description="A process of a Matrix homeserver.")
    parser.add_argument(
        "-c",
        "--config-path",
        action="append",
        metavar="FILE",
        help="configuration file, or directory of *.yaml files; may be given several times, later files win "
        "(default: homeserver.yaml)",
    )
    parser.add_argument("-H", "--server-name", metavar="NAME", help="the server's name, for --generate-config")
    parser.add_argument(
        "--generate-config", action="store_true", help="write a new server's configuration, keys included, and leave"
    )
    parser.add_argument(
        "--report-stats",
        choices=("yes", "no"),
        help="for --generate-config: whether you would share statistics of use (none are sent)",
    )
    parser.add_argument("--generate-keys", action="store_true", help="make the keys that are missing, and leave")
    parser.add_argument(
        "--config-directory", metavar="DIR", help="where --generate-config puts what belongs to the file"
    )
    parser.add_argument("--keys-directory", metavar="DIR", help="where --generate-config puts the signing key")
    parser.add_argument("--data-directory", metavar="DIR", help="where the generated configuration keeps its data")
    background = parser.add_mutually_exclusive_group()
    background.add_argument("-D", "--daemonize", action="store_true", default=None, help="go to the background")
    background.add_argument("--no-daemonize", dest="daemonize", action="store_false", help="stay in the foreground")
    arguments = parser.parse_args(argv)
    arguments.config_path = arguments.config_path or ["homeserver.yaml"]
    return arguments


def run_command(arguments: argparse.Namespace) -> bool:
    """Do what `--generate-config` or `--generate-keys` ask; False where neither is given. Raises `ConfigError`."""
    if arguments.generate_config:
        _generate_config(arguments)
    elif arguments.generate_keys:
        _generate_keys(arguments.config_path)
    return bool(arguments.generate_config or arguments.generate_keys)


def _generate_config(arguments: argparse.Namespace) -> None:
    from synapse.config.generate import Layout, generate_config

    if arguments.server_name is None:
        remedy = "add --server-name and the domain of your server; it cannot be changed later"
        raise ConfigError(_COMMAND_LINE, "--server-name", "is missing", remedy)
    if arguments.report_stats is None:
        raise ConfigError(_COMMAND_LINE, "--report-stats", "is missing", "add --report-stats=yes or --report-stats=no")
    config_file = os.path.abspath(arguments.config_path[0])
    if os.path.isdir(config_file):
        config_file = os.path.join(config_file, "homeserver.yaml")
    beside = os.path.abspath(arguments.config_directory or os.path.dirname(config_file))
    layout = Layout(
        config_file=config_file,
        config_directory=beside,
        keys_directory=os.path.abspath(arguments.keys_directory or beside),
        data_directory=os.path.abspath(arguments.data_directory or beside),
    )
    exists = os.path.exists(config_file)
    written = generate_config(arguments.server_name, arguments.report_stats == "yes", layout)
    if exists:
        made = f"Wrote {', '.join(written)}." if written else "None is missing."
        print(f"Config file {config_file} already exists: generating missing files. {made}")
        return
    print(f"Wrote {', '.join(written)}. Look them over, then start the server with -c {config_file}.")


def _generate_keys(paths: Sequence[str]) -> None:
    from synapse.config.files import read_files
    from synapse.config.generate import generate_keys

    merged = read_files(paths)
    path = generate_keys(merged.options, merged.place("signing_key_path"))
    print(f"Wrote {path}." if path else "No key is missing.")
