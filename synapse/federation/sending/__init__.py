"""Sending to other servers: the duty `federation_sender`."""
