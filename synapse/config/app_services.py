"""Reading the registrations of application services: the files that `app_service_config_files` names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import yaml

from synapse.api.app_services import AppService, AppServices, BadRegistration, parse, together
from synapse.config.errors import ConfigError

if TYPE_CHECKING:
    from synapse.config.root import Config

OPTION: Final = "app_service_config_files"


def read_app_services(config: Config) -> AppServices:
    """Raises `ConfigError`."""
    services: list[AppService] = []
    for path in config.duties.app_service_config_files:
        try:
            with open(path, encoding="utf-8") as file:
                services.append(parse(yaml.safe_load(file), config.server.server_name))
            found = together(services)
        except BadRegistration as error:
            raise _error(config, f"names {path}, which {error}", "correct the registration, or leave it out") from None
        except OSError as error:
            problem = f"names {path}, which cannot be read ({error.strerror})"
            raise _error(config, problem, "make it readable, or leave it out") from None
        except (yaml.YAMLError, UnicodeDecodeError):
            raise _error(config, f"names {path}, which is no YAML", "correct it, or leave it out") from None
    return found if services else AppServices()


def _error(config: Config, problem: str, remedy: str) -> ConfigError:
    return ConfigError(config.place(OPTION), OPTION, problem, remedy)
