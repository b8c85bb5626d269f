"""Endpoints of the client-server API."""
