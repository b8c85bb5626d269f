"""HTTP: serving and routing requests, limiting them, and calling our own processes.

`wire` is HTTP/1.1 itself, pure; `channel` and `site` put it on a socket; `routing` and `router` lead a request to its
handler; `request`, `body` and `answers` are what a handler gets and gives; `ratelimit` counts; `client` calls other
processes. `server` is the door: endpoints import from there. What an endpoint does is the business of `synapse.rest`.
"""
