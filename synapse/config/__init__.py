"""Configuration files, read into typed, validated, immutable settings."""
