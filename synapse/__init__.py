"""A Matrix homeserver that runs as one process or scales out into workers."""

__version__ = "0.1.0"
