"""From where and when users' devices were last seen. Written in batches by the main process, which workers tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class Seen(NamedTuple):
    """A device at an address at a time (milliseconds); `device_id` "" for tokens without a device."""

    user_id: str
    device_id: str
    ip: str
    user_agent: str
    last_seen_ts: int


class UserIpStore:
    """Writes and reads sightings."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def record(self, sightings: list[Seen]) -> None:
        """Writes a batch, and the devices' last sighting; at most one sighting for each user, device, ip and agent."""
        if sightings:
            await self._db.write("user_ips.record", _record, sightings)

    async def of_user(self, user_id: str) -> list[Seen]:
        """Newest first."""
        return await self._db.read("user_ips.of_user", _of_user, user_id)

    async def forget(self, before: int) -> None:
        """Drops sightings older than that time (milliseconds)."""
        await self._db.write("user_ips.forget", _forget, before)


def _record(txn: Transaction, sightings: list[Seen]) -> None:
    ordered = sorted(sightings)  # one order for everybody: two batches cannot deadlock
    txn.values(
        """
        INSERT INTO user_ips (user_id, device_id, ip, user_agent, last_seen_ts) VALUES %s
        ON CONFLICT (user_id, device_id, ip, user_agent) DO UPDATE
        SET last_seen_ts = GREATEST(user_ips.last_seen_ts, EXCLUDED.last_seen_ts)
        """,
        ordered,
    )
    newest = {(seen.user_id, seen.device_id): seen for seen in sorted(ordered, key=lambda seen: seen.last_seen_ts)}
    txn.values(
        """
        UPDATE devices d SET last_seen_ts = v.ts, last_seen_ip = v.ip, last_seen_user_agent = v.agent
        FROM (VALUES %s) AS v (user_id, device_id, ip, agent, ts)
        WHERE d.user_id = v.user_id AND d.device_id = v.device_id AND COALESCE(d.last_seen_ts, 0) < v.ts
        """,
        list(newest.values()),
    )


def _of_user(txn: Transaction, user_id: str) -> list[Seen]:
    txn.execute(
        """
        SELECT user_id, device_id, ip, user_agent, last_seen_ts FROM user_ips WHERE user_id = %s
        ORDER BY last_seen_ts DESC
        """,
        (user_id,),
    )
    return [Seen(*row) for row in txn.rows()]


def _forget(txn: Transaction, before: int) -> None:
    txn.execute("DELETE FROM user_ips WHERE last_seen_ts < %s", (before,))
