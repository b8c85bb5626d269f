"""Memberships that other servers help with: joining, knocking at and leaving rooms that this server takes no part in,
inviting other servers' users, and fetching what happened in a room before.

`candidates` says whom to ask, `search` asks them in turn and decides which answer counts, `templates` makes events of
what they propose, `joining` enters rooms with what `room_seen` has checked; `knocking`, `leaving`, `inviting` and
`backfill` are what they say. Users' wishes come in through `memberships`.

Server-server API, "Joining Rooms", "Knocking upon a room", "Inviting to a room", "Leaving Rooms", "Backfilling".
"""
