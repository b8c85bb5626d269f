"""The parts of an answer to /sync, a small module each, all with the two methods of `synapse.sync.context.Section`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synapse.replication.contacts import RoomsOf
    from synapse.storage.account_data import AccountDataStore
    from synapse.storage.past_state import PastStateStore
    from synapse.storage.presence import PresenceStore
    from synapse.storage.receipts import ReceiptStore
    from synapse.storage.shared_rooms import SharedRoomStore
    from synapse.storage.timeline import TimelineStore
    from synapse.storage.to_device import ToDeviceStore
    from synapse.sync.changes import Changes
    from synapse.sync.context import Section
    from synapse.sync.forms import Annotator
    from synapse.sync.keys_left import KeysLeftCache
    from synapse.sync.lazy_members import LazyMembers
    from synapse.sync.recent import RecentEvents
    from synapse.sync.room_states import RoomStates
    from synapse.sync.sections.account_data import PushRulesOf
    from synapse.sync.typing import TypingRooms
    from synapse.sync.unread import UnreadCounts
    from synapse.sync.visibility import VisibilityFilter
    from synapse.util.clock import Clock


def build_sections(
    *,
    timeline: TimelineStore,
    states: PastStateStore,
    recent: RecentEvents,
    visibility: VisibilityFilter,
    annotator: Annotator,
    room_states: RoomStates,
    lazy_members: LazyMembers,
    receipts: ReceiptStore,
    unread: UnreadCounts,
    account_data: AccountDataStore,
    push_rules: PushRulesOf,
    to_device: ToDeviceStore,
    shared: SharedRoomStore,
    rooms_of: RoomsOf,
    keys_left: KeysLeftCache,
    presence: PresenceStore | None,
    typing: TypingRooms,
    changes: Changes,
    clock: Clock,
) -> Sequence[Section]:
    """All sections in the order in which they have to look; `presence` is None where it is switched off."""
    from synapse.sync.sections.account_data import AccountDataSection
    from synapse.sync.sections.device_keys import DeviceKeySection
    from synapse.sync.sections.device_lists import DeviceListSection
    from synapse.sync.sections.hidden import HiddenSection
    from synapse.sync.sections.presence import PresenceSection
    from synapse.sync.sections.receipts import ReceiptSection
    from synapse.sync.sections.state import StateSection
    from synapse.sync.sections.stripped import StrippedSection
    from synapse.sync.sections.summary import SummarySection
    from synapse.sync.sections.timeline import TimelineSection
    from synapse.sync.sections.to_device import ToDeviceSection
    from synapse.sync.sections.typing import TypingSection
    from synapse.sync.sections.unread import UnreadSection

    return (
        HiddenSection(states, recent),
        TimelineSection(timeline, states, recent, visibility, annotator),
        SummarySection(states),
        StateSection(states, room_states, annotator, lazy_members),
        ReceiptSection(receipts, changes),
        UnreadSection(unread),
        TypingSection(typing),
        StrippedSection(states, annotator),
        AccountDataSection(account_data, push_rules, changes),
        ToDeviceSection(to_device, changes),
        DeviceListSection(shared, rooms_of, changes),
        DeviceKeySection(keys_left),
        *((PresenceSection(presence, changes, clock),) if presence is not None else ()),
    )
