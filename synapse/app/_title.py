"""What a process is called in `ps`, and by what synctl knows it: `python -m synapse.app.NAME -c FILE…`, absolute paths.

A title takes the place of the command line and the environment that the program was started with, and is cut off where
they end. Started singly, a process has its name on the command line anyway and keeps that where there is no room; but
what is forked from synctl may need more room than `synctl start` and an empty environment leave. So synctl calls
`make_room` before anything else.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Final

_PADDING: Final = "SYNAPSE_TITLE_ROOM"
_ROOM: Final = 4096
_ARG_START, _ENV_END = 47, 50  # of /proc/PID/stat, counted from 0


def set_title(app: str, files: Sequence[str]) -> None:
    """Be called what the application and its files say."""
    try:
        from setproctitle import setproctitle
    except ImportError:  # not on this platform; started singly, the name is right anyway
        return
    title = f"python -m {app} {' '.join(f'-c {os.path.abspath(file)}' for file in files)}"
    if app not in sys.orig_argv or _has_room(len(os.fsencode(title))):
        setproctitle(title)


def make_room(arguments: Sequence[str] | None = None) -> None:
    """Start this program again with a larger environment, if its own leaves too little room for titles. May not return.

    :param arguments: the command line to start it with; the present one by default.
    """
    if _PADDING in os.environ:
        with contextlib.suppress(ImportError):
            from setproctitle import getproctitle

            getproctitle()  # the library looks for the room once, now, and keeps it
        del os.environ[_PADDING]
        return
    if _has_room(_ROOM):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.suppress(OSError):
        environment = {**os.environ, _PADDING: "." * _ROOM}
        os.execve(sys.executable, [sys.executable, *(arguments or sys.orig_argv[1:])], environment)


def _has_room(length: int) -> bool:
    """Whether command line and environment have so many bytes; yes where nobody can tell."""
    try:
        with open("/proc/self/stat", "rb") as file:
            # The second field is the program's name in parentheses, which may itself hold anything.
            fields = [b"", b"", *file.read().rpartition(b") ")[2].split()]
        return int(fields[_ENV_END]) - int(fields[_ARG_START]) > length
    except (OSError, ValueError, IndexError):
        return True
