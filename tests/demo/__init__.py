"""Tests of the demo's own files."""
