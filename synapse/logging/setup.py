"""Where log lines go: a configuration in the YAML of `logging.config.dictConfig`, or stderr; reopening the files.

Whatever the configuration says, every handler strikes out secrets. Log rotation moves a file away and sends SIGHUP;
`reopen` then begins a new file under the old name.
"""

from __future__ import annotations

import logging
import logging.config
from collections.abc import Iterator
from typing import Any

from synapse.logging.context import name_process
from synapse.logging.format import SynapseFormatter, request_record
from synapse.logging.redact import RedactionFilter


class LogConfigError(Exception):
    """The log configuration cannot be used; the message is a sentence that names the file and what is wrong."""


def configure(path: str | None, process_name: str = "") -> None:
    """Sets up logging for this process. Raises LogConfigError.

    :param path: a YAML file in the form of `logging.config.dictConfig`; None for lines of level INFO on stderr.
    :param process_name: what request ids begin with ("" for the main process).
    """
    name_process(process_name)
    logging.setLogRecordFactory(request_record)
    if path is None:
        _log_to_stderr()
    else:
        _apply(path, _load(path))
    for handler in _handlers():
        if not any(isinstance(f, RedactionFilter) for f in handler.filters):
            handler.addFilter(RedactionFilter())


def reopen() -> None:
    """Closes every log file and opens it again under its name, for log rotation."""
    for handler in _handlers():
        if isinstance(handler, logging.FileHandler):
            _reopen(handler)


def follow_twisted() -> None:
    """Sends what Twisted logs to Python's logging, from now on."""
    from twisted.logger import STDLibLogObserver, globalLogBeginner

    # The class declares its interface in a way that type checkers without a zope plugin do not see.
    globalLogBeginner.beginLoggingTo([STDLibLogObserver()], redirectStandardIO=False)  # type: ignore[list-item]
    # Ports that open and close, and factories that start, are told by the app itself.
    logging.getLogger("twisted").setLevel(logging.WARNING)


def _log_to_stderr() -> None:
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    handler = logging.StreamHandler()
    handler.setFormatter(SynapseFormatter())
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def _load(path: str) -> dict[str, Any]:
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            loaded = yaml.safe_load(file)
    except OSError as e:
        raise LogConfigError(f"The log configuration {path} cannot be read: {e.strerror}.") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise LogConfigError(f"The log configuration {path} is not valid YAML: {' '.join(str(e).split())}.") from e
    if not isinstance(loaded, dict):
        raise LogConfigError(
            f"The log configuration {path} must be a mapping in the form of logging.config.dictConfig."
        )
    return {"disable_existing_loggers": False, **loaded}


def _apply(path: str, config: dict[str, Any]) -> None:
    try:
        logging.config.dictConfig(config)
    except (ValueError, TypeError, AttributeError, ImportError, OSError) as e:
        # dictConfig says in the outer error which part it was, and in the cause what was wrong with it.
        reason = f"{e} ({e.__cause__})" if e.__cause__ is not None else str(e)
        raise LogConfigError(f"The log configuration {path} cannot be used: {reason}.") from e


def _handlers() -> Iterator[logging.Handler]:
    loggers: list[Any] = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    found = [handler for logger in loggers if isinstance(logger, logging.Logger) for handler in logger.handlers]
    # A buffering handler has the one that writes as its target.
    found += [target for handler in found if (target := getattr(handler, "target", None)) is not None]
    return iter(dict.fromkeys(found))


def _reopen(handler: logging.FileHandler) -> None:
    handler.acquire()
    try:
        if handler.stream is not None:
            handler.stream.close()
        handler.stream = handler._open()
    except OSError as e:
        # Without its stream the handler opens the file at the next line; the directory may be back by then.
        handler.stream = None
        logging.getLogger(__name__).error("The log file %s cannot be opened again: %s", handler.baseFilename, e)
    finally:
        handler.release()
