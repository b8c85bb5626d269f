"""Names that the specification gives to things: event types, memberships, join rules and their like.

Only names that more than one module spells, and the limits on events. What a name means is told by the module that
implements it; settings and their defaults are in `synapse.config`.
"""

from __future__ import annotations

from typing import Final

MEGOLM: Final = "m.megolm.v1.aes-sha2"
"""The one algorithm by which rooms are encrypted."""


class EventTypes:
    """Types of room events."""

    CREATE: Final = "m.room.create"
    MEMBER: Final = "m.room.member"
    JOIN_RULES: Final = "m.room.join_rules"
    POWER_LEVELS: Final = "m.room.power_levels"
    THIRD_PARTY_INVITE: Final = "m.room.third_party_invite"
    HISTORY_VISIBILITY: Final = "m.room.history_visibility"
    GUEST_ACCESS: Final = "m.room.guest_access"
    CANONICAL_ALIAS: Final = "m.room.canonical_alias"
    ALIASES: Final = "m.room.aliases"  # room versions 1 to 5 give it a rule of its own
    NAME: Final = "m.room.name"
    TOPIC: Final = "m.room.topic"
    AVATAR: Final = "m.room.avatar"
    ENCRYPTION: Final = "m.room.encryption"
    ENCRYPTED: Final = "m.room.encrypted"
    MESSAGE: Final = "m.room.message"
    STICKER: Final = "m.sticker"
    REACTION: Final = "m.reaction"
    REDACTION: Final = "m.room.redaction"
    TOMBSTONE: Final = "m.room.tombstone"
    SERVER_ACL: Final = "m.room.server_acl"
    POLICY: Final = "m.room.policy"
    PINNED_EVENTS: Final = "m.room.pinned_events"
    SPACE_CHILD: Final = "m.space.child"
    SPACE_PARENT: Final = "m.space.parent"
    CALL_INVITE: Final = "m.call.invite"


class EduTypes:
    """Types of ephemeral data: between servers, and (typing, receipt, presence) in what clients sync."""

    TYPING: Final = "m.typing"
    RECEIPT: Final = "m.receipt"
    PRESENCE: Final = "m.presence"
    DEVICE_LIST_UPDATE: Final = "m.device_list_update"
    SIGNING_KEY_UPDATE: Final = "m.signing_key_update"
    DIRECT_TO_DEVICE: Final = "m.direct_to_device"


class AccountDataTypes:
    """Types of account data that the server itself looks at."""

    DIRECT: Final = "m.direct"
    PUSH_RULES: Final = "m.push_rules"
    FULLY_READ: Final = "m.fully_read"
    IGNORED_USER_LIST: Final = "m.ignored_user_list"
    TAG: Final = "m.tag"
    INVITE_PERMISSION_CONFIG: Final = "m.invite_permission_config"


class Membership:
    """`membership` of `m.room.member`."""

    JOIN: Final = "join"
    INVITE: Final = "invite"
    KNOCK: Final = "knock"
    LEAVE: Final = "leave"
    BAN: Final = "ban"
    ALL: Final = frozenset({"join", "invite", "knock", "leave", "ban"})


class JoinRules:
    """`join_rule` of `m.room.join_rules`."""

    PUBLIC: Final = "public"
    INVITE: Final = "invite"
    KNOCK: Final = "knock"
    RESTRICTED: Final = "restricted"
    KNOCK_RESTRICTED: Final = "knock_restricted"
    PRIVATE: Final = "private"


class HistoryVisibility:
    """`history_visibility` of `m.room.history_visibility`; a room without one is `shared`."""

    INVITED: Final = "invited"
    JOINED: Final = "joined"
    SHARED: Final = "shared"
    WORLD_READABLE: Final = "world_readable"
    ALL: Final = frozenset({"invited", "joined", "shared", "world_readable"})


class GuestAccess:
    """`guest_access` of `m.room.guest_access`; a room without one is `forbidden`."""

    CAN_JOIN: Final = "can_join"
    FORBIDDEN: Final = "forbidden"


class Presence:
    """`presence` of `m.presence`."""

    ONLINE: Final = "online"
    UNAVAILABLE: Final = "unavailable"
    OFFLINE: Final = "offline"
    ALL: Final = frozenset({"online", "unavailable", "offline"})


class ReceiptTypes:
    """Types of read receipts."""

    READ: Final = "m.read"
    READ_PRIVATE: Final = "m.read.private"
    FULLY_READ: Final = "m.fully_read"


class RelationTypes:
    """`rel_type` of `m.relates_to`."""

    ANNOTATION: Final = "m.annotation"
    REFERENCE: Final = "m.reference"
    REPLACE: Final = "m.replace"
    THREAD: Final = "m.thread"


class RoomTypes:
    """`type` of `m.room.create`."""

    SPACE: Final = "m.space"


class LoginTypes:
    """Stages of user-interactive authentication and types of login."""

    PASSWORD: Final = "m.login.password"
    TOKEN: Final = "m.login.token"
    SSO: Final = "m.login.sso"
    OAUTH: Final = "m.oauth"
    APPLICATION_SERVICE: Final = "m.login.application_service"
    DUMMY: Final = "m.login.dummy"
    TERMS: Final = "m.login.terms"
    RECAPTCHA: Final = "m.login.recaptcha"
    EMAIL_IDENTITY: Final = "m.login.email.identity"
    MSISDN: Final = "m.login.msisdn"
    REGISTRATION_TOKEN: Final = "m.login.registration_token"


THREEPID_STAGES: Final = {"email": LoginTypes.EMAIL_IDENTITY, "msisdn": LoginTypes.MSISDN}
"""By which stage having an address is proven, by its medium."""


MAX_EVENT_BYTES: Final = 65_536
"""Of an event as it is sent between servers: canonical JSON, signatures included (client-server API, "Size limits")."""

MAX_ID_BYTES: Final = 255
"""Of `sender`, `room_id`, `state_key`, `type` and `event_id`, in UTF-8, sigil and domain included."""

MAX_PREV_EVENTS: Final = 20
MAX_AUTH_EVENTS: Final = 10
"""Limits of the federation format of an event (`pdu_v3` and its kin)."""

MAX_INT: Final = 2**53 - 1
MIN_INT: Final = -(2**53) + 1
"""The integers of canonical JSON."""
