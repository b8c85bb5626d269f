"""The stages of user-interactive authentication, a module each: what a client shows, and how it is checked.

`types` says what a stage is; `synapse.handlers.ui_auth` takes clients through them. The composition root lists them.
Client-server API, "Authentication types".
"""
