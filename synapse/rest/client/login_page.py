"""The page by which people log in whose client knows no better: `/_matrix/static/client/login/`.

Client-server API, "Login Fallback".
"""

from __future__ import annotations

from synapse.http.answers import Answer
from synapse.http.pages import new_nonce, page
from synapse.http.server import Request, serves
from synapse.util.templates import Templates


class LoginPage:
    """One page; all that it does it asks of `/login`."""

    def __init__(self, templates: Templates, server_name: str) -> None:
        self._templates = templates
        self._server_name = server_name

    @serves("login_page")
    async def show(self, request: Request) -> Answer:
        nonce = new_nonce()
        return page(self._templates.render("login_fallback.html", nonce=nonce, server_name=self._server_name), nonce)
