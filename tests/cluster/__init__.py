"""The real thing: every process, one database, nginx in front, real clients."""
