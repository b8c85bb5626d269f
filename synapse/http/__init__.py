"""Serving and calling HTTP."""
