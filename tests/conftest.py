"""Fixtures that every test may ask for; they are described where they are defined."""

from tests.support.postgres import database, database_settings, postgres

__all__ = ["database", "database_settings", "postgres"]
