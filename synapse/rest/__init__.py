"""The HTTP endpoints: parse, call a handler, answer."""
