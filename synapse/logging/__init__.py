"""Log formats and the context of a request in log lines."""
