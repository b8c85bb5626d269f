"""The keys that this server signs with, published under its own signature.

Server-server API, "Publishing Keys"; appendices, "Signing JSON".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synapse.events import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from synapse.config.sections import SigningSeed
    from synapse.util.clock import Clock

VALID_FOR_MS: Final = 24 * 3600 * 1000
_RENEW_MS: Final = 3600 * 1000
"""The answer is signed anew when it is so old: others shall keep it for a good while."""


class ServerKeys:
    """Makes the answer to `GET /_matrix/key/v2/server`.

    :param seeds: the private keys, as the configuration reads them.
    :param old: public keys (base64) that are used no more, by id, and when (milliseconds) they went out of use.
    :param valid_for: milliseconds that others may keep the answer for.
    """

    def __init__(
        self,
        server_name: str,
        seeds: Sequence[SigningSeed],
        clock: Clock,
        old: Mapping[str, tuple[str, int]] = {},
        valid_for: int = VALID_FOR_MS,
    ) -> None:
        self._server_name = server_name
        self._seeds = seeds
        self._clock = clock
        self._old = old
        self._valid_for = valid_for
        self._renew = min(_RENEW_MS, valid_for // 2)
        self._signed = b""
        self._signed_at = 0

    def published(self) -> bytes:
        """The signed answer, as canonical JSON; the same for an hour, or half of its validity."""
        now = int(self._clock.seconds() * 1000)
        if not self._signed or now >= self._signed_at + self._renew:
            self._signed = self._sign(now)
            self._signed_at = now
        return self._signed

    def all_keys(self) -> Iterator[tuple[str, bytes, int | None]]:
        """Id and public key of all keys, and when (milliseconds) the old ones went out of use."""
        from unpaddedbase64 import decode_base64

        for seed in self._seeds:
            yield seed.key_id, bytes(_signing_key(seed).verify_key), None
        for key_id, (key, expired) in self._old.items():
            yield key_id, decode_base64(key), expired

    def _sign(self, now: int) -> bytes:
        from signedjson.key import encode_verify_key_base64
        from signedjson.sign import sign_json

        keys = [_signing_key(seed) for seed in self._seeds]
        answer: dict[str, Any] = {
            "server_name": self._server_name,
            "valid_until_ts": now + self._valid_for,
            "verify_keys": {
                f"{key.alg}:{key.version}": {"key": encode_verify_key_base64(key.verify_key)} for key in keys
            },
            "old_verify_keys": {
                key_id: {"key": key.rstrip("="), "expired_ts": expired} for key_id, (key, expired) in self._old.items()
            },
        }
        for key in keys:
            answer = sign_json(answer, self._server_name, key)
        return canonical.encode(answer)


def _signing_key(seed: SigningSeed) -> Any:
    from nacl.signing import SigningKey

    key: Any = SigningKey(seed.seed)
    key.alg, key.version = seed.algorithm, seed.version  # as signedjson wants its keys
    return key
