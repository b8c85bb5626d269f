"""The database: pool, migrations and one store per subject."""
