"""What operates the process rather than Matrix: whether it is well, its metrics, and a page for the curious."""

from __future__ import annotations

from html import escape

from synapse.http.server import Answer, Drain, Request, serves

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Synapse is running</title>
<style>body {{ font-family: sans-serif; max-width: 40em; margin: 4em auto; padding: 0 1em; line-height: 1.5 }}</style>
</head>
<body>
<h1>It works! Synapse is running</h1>
<p>This is the Matrix homeserver of <strong>{server_name}</strong>, and it is listening on this address.</p>
<p>To talk to others over it you need a Matrix client; a list is at <a
href="https://matrix.org/ecosystem/clients/">matrix.org</a>.</p>
</body>
</html>
"""
_POLICY = (("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"), ("X-Frame-Options", "DENY"))


class Operation:
    """Served by every process, listeners permitting."""

    def __init__(self, server_name: str, drain: Drain) -> None:
        self._page = _PAGE.format(server_name=escape(server_name)).encode()
        self._drain = drain

    @serves("health")
    async def health(self, request: Request) -> Answer:
        """`OK` while the process takes requests; 503 once it is leaving, so that balancers send it no more."""
        if self._drain.leaving:
            return Answer(503, b"LEAVING", content_type="text/plain; charset=utf-8")
        return Answer(200, b"OK", content_type="text/plain; charset=utf-8")

    @serves("metrics")
    async def metrics(self, request: Request) -> Answer:
        from synapse.metrics.exposition import CONTENT_TYPE, render

        return Answer(200, render(), content_type=CONTENT_TYPE)

    @serves("welcome")
    async def welcome(self, request: Request) -> Answer:
        return Answer(200, self._page, _POLICY, "text/html; charset=utf-8")
