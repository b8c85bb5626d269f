"""What other servers ask for their users' memberships, or for ours: joining, knocking, leaving and inviting.

Server-server API, "Joining Rooms", "Knocking upon a room", "Inviting to a room", "Leaving Rooms", "Third-party
invites", "Policy Servers".
"""
