"""What servers tell each other that is not events: devices and keys, messages between devices, typing, presence,
receipts. Server-server API, "Ephemeral Data Units" and the sections after it.
"""
