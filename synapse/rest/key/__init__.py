"""Endpoints of the key API: the keys that this server signs with."""
