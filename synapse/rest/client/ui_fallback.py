"""The fallback pages of interactive authentication: `/auth/{stage}/fallback/web`. Client-server API, "Fallback"."""

from __future__ import annotations

from typing import Final

from synapse.api.errors import MatrixError
from synapse.handlers.ui_fallback import Fallbacks, View
from synapse.http.answers import Answer
from synapse.http.forms import form_of
from synapse.http.pages import new_nonce, page
from synapse.http.server import Request, serves
from synapse.util.templates import Templates

_TITLE: Final = "This did not work"


class FallbackPages:
    """Answers with pages whatever happens: a person looks at them."""

    def __init__(self, fallbacks: Fallbacks, templates: Templates) -> None:
        self._fallbacks = fallbacks
        self._templates = templates

    @serves("ui_fallback")
    async def show(self, request: Request, stage: str) -> Answer:
        try:
            return self._page(await self._fallbacks.show(stage, request.required_arg("session")))
        except MatrixError as error:
            return self._refusal(error)

    @serves("ui_fallback_submitted")
    async def submit(self, request: Request, stage: str) -> Answer:
        try:
            form = {name: values[0] for name, values in form_of(request).items()}
            # The form may be sent to the address of its page, which names the session as well.
            form.setdefault("session", request.arg("session", ""))
            return self._page(await self._fallbacks.submit(stage, form, request))
        except MatrixError as error:
            return self._refusal(error)

    def _refusal(self, error: MatrixError) -> Answer:
        return self._page(View("notice.html", {"title": _TITLE, "text": error.message, "is_error": True}, error.code))

    def _page(self, view: View) -> Answer:
        nonce = new_nonce()
        html = self._templates.render(view.template, nonce=nonce, **view.values)
        return page(html, nonce, code=view.code, script_sources=view.script_sources)
