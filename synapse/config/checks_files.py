"""Checks of files that administrators write: templates, policies, metadata of identity providers.

What is wrong in one is told at the start, and not when somebody needs it. Only the main process reads what is in them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

from synapse.config.errors import ConfigError

if TYPE_CHECKING:
    from synapse.config.checks import Place
    from synapse.config.root import Config

_LONGEST_REASON = 200


def check(config: Config, place: Place) -> None:
    """All of them. Raises `ConfigError`."""
    directory = config.templates.custom_template_directory
    if directory is not None and not os.path.isdir(directory):
        remedy = "make it, readable by the user that the server runs as, or remove the option"
        _fail(place, "templates.custom_template_directory", f"is {directory}, which is no directory", remedy)
    if not config.is_main:
        return
    for option, file in (*_templates(config), *_policies(config)):
        _check_template(place, option, file)
    if config.saml2_config.is_on:
        _check_metadata(config, place)


def _fail(place: Place, option: str, problem: str, remedy: str) -> NoReturn:
    raise ConfigError(place(option), option, problem, remedy)


def _templates(config: Config) -> Iterator[tuple[str, str]]:
    directory = config.templates.custom_template_directory
    for name in () if directory is None else sorted(os.listdir(directory)):
        if name.endswith((".html", ".txt")):
            yield "templates.custom_template_directory", os.path.join(directory or "", name)


def _policies(config: Config) -> Iterator[tuple[str, str]]:
    consent = config.telling.user_consent
    for language in () if consent is None else sorted(os.listdir(consent.template_dir)):
        file = os.path.join(consent.template_dir if consent else "", language, f"{consent and consent.version}.html")
        if os.path.isfile(file):
            yield "user_consent.template_dir", file


def _check_template(place: Place, option: str, file: str) -> None:
    from jinja2 import Environment, TemplateSyntaxError

    try:
        with open(file, encoding="utf-8") as opened:
            Environment().compile(opened.read())
    except TemplateSyntaxError as error:
        problem = f"has {file}, line {error.lineno}, which is no template that can be read ({error.message})"
        _fail(place, option, problem, "correct it; see docs/templates.md")
    except (OSError, ValueError) as error:
        _fail(place, option, f"has {file}, which cannot be read ({_reason(error)})", "make it UTF-8 text and readable")


def _check_metadata(config: Config, place: Place) -> None:
    """The metadata that is at hand; what is elsewhere is fetched when it is needed."""
    found = config.saml2_config.pysaml2_settings(config.client_baseurl).get("metadata")
    if not isinstance(found, dict):  # pysaml2's form with classes
        return
    option = "saml2_config.sp_config.metadata"
    files = [file for named in found.get("local") or () for file in _files_of(named)]
    if not files and not found.get("inline"):
        return
    from defusedxml.ElementTree import fromstring

    for file in files:
        try:
            with open(file, "rb") as opened:
                fromstring(opened.read())
        except (OSError, SyntaxError, ValueError) as error:
            _fail(
                place, f"{option}.local", f"names {file}, which is no XML that can be read ({_reason(error)})", _REMEDY
            )
    for text in found.get("inline") or ():
        try:
            fromstring(text)
        except (SyntaxError, ValueError, TypeError) as error:
            _fail(place, f"{option}.inline", f"is no XML ({_reason(error)})", _REMEDY)


_REMEDY = "take the provider's metadata as the provider gives it"


def _files_of(named: object) -> list[str]:
    path = str(named)
    return [os.path.join(path, name) for name in sorted(os.listdir(path))] if os.path.isdir(path) else [path]


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).replace("\n", " ")[:_LONGEST_REASON]
