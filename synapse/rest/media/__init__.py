"""Endpoints of the media repository."""
