"""Pages: what their policy lets in."""

from __future__ import annotations

from synapse.http.pages import new_nonce, page


def test_a_page_lets_in_what_carries_its_nonce() -> None:
    nonce = new_nonce()
    answer = page("<p>", nonce, code=403)
    headers = dict(answer.headers)
    assert (answer.code, answer.content_type) == (403, "text/html; charset=utf-8")
    assert f"script-src 'nonce-{nonce}';" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert new_nonce() != nonce


def test_a_captcha_may_bring_scripts_and_frames() -> None:
    policy = dict(page("", "n", script_sources="https://captcha.example").headers)["Content-Security-Policy"]
    assert "script-src 'nonce-n' https://captcha.example;" in policy
    assert "frame-src https://captcha.example;" in policy
