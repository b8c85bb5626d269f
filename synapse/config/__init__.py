"""Configuration files, read into typed, validated, immutable settings.

from synapse.config import Config, ConfigError, load
"""

from synapse.config.errors import ConfigError
from synapse.config.root import Config, from_options, load, load_unchecked

__all__ = ["Config", "ConfigError", "from_options", "load", "load_unchecked"]
