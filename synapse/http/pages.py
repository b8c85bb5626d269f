"""Answers that are pages for people: HTML, with a policy that lets in nothing but what the page itself brings."""

from __future__ import annotations

import secrets
from typing import Final

from synapse.http.answers import Answer, Headers

_TYPE: Final = "text/html; charset=utf-8"


def new_nonce() -> str:
    """For the one script and style that a page may bring: `<script nonce="{{ nonce }}">`."""
    return secrets.token_urlsafe(16)


def page(html: str, nonce: str, *, code: int = 200, headers: Headers = (), script_sources: str = "") -> Answer:
    """A page whose scripts and styles carry `nonce`.

    :param script_sources: further sources of scripts and frames, in the syntax of Content-Security-Policy; a captcha's.
    """
    sources = f" {script_sources}" if script_sources else ""
    frames = f"frame-src{sources}; connect-src 'self'{sources}" if sources else "connect-src 'self'"
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'{sources}; style-src 'nonce-{nonce}'; img-src https: data:; "
        f"{frames}; base-uri 'none'; frame-ancestors 'self'"
    )
    ours = (
        ("Content-Security-Policy", policy),
        ("Cache-Control", "no-store"),
        ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "SAMEORIGIN"),
    )
    return Answer(code, html.encode(), (*ours, *headers), _TYPE)
