"""The OpenAPI description of the client-server and the server-server API as the tests use it: what it says, and whether
answers agree.
"""
