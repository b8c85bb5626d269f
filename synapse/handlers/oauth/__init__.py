"""Access tokens of an OAuth 2.0 authorization server: what it says of them, and whom and which devices they are.

`tokens` knows who comes with one, `introspection` asks the server, `grants` reads its answers. What clients are told of
that server is `synapse.handlers.oauth_metadata`'s matter. Client-server API, "OAuth 2.0 API".
"""
