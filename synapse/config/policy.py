"""The section of a configuration about the policy server that this server may be for rooms."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from synapse.config.errors import ConfigError
from synapse.config.options import Doc, Path, Positive, Section, Size
from synapse.config.sections import SigningSeed, read_seeds

if TYPE_CHECKING:
    from synapse.config.root import Config


class PolicyServerConfig(Section, frozen=True, kw_only=True):
    """Policy server: rooms that name this server in m.room.policy have it look at each event before it is sent. What
    is not to be sent is not signed. Rooms that are encrypted keep their words to themselves."""

    enabled: Annotated[
        bool, Doc("Whether this server is one, for rooms that one of its users is in and that name its key.")
    ] = False
    signing_key_path: Annotated[
        Path | None,
        Doc(
            "The file with the key that it signs with, of the form of the server's own signing key, which it must not "
            "be. /.well-known/matrix/policy_server publishes its public half.",
            example="example.org.policy.key",
        ),
    ] = None
    blocked_words: Annotated[
        tuple[str, ...],
        Doc("Words (or phrases) that no event may contain, in whichever case.", example=["casino", "free coins"]),
    ] = ()
    blocked_servers: Annotated[
        tuple[str, ...],
        Doc(
            "Servers whose users may send nothing, but leave; `*` stands for any letters, `?` for one.",
            example=["*.spam.example"],
        ),
    ] = ()
    max_body_bytes: Annotated[Size | None, Doc("How long the `body` of a message may be.", example="10K")] = None
    max_mentions: Annotated[Positive | None, Doc("How many users an event may mention (m.mentions).", example=10)] = (
        None
    )

    def read_key(self) -> SigningSeed:
        """The key in the file. Raises `OSError`, `ValueError`."""
        return read_seeds(self.signing_key_path or "")[0]


def check_policy_server(config: Config, place: Callable[[str | None], str]) -> None:
    """Raises `ConfigError` for a policy server that could sign nothing, or by a key that is not its own alone."""
    policy, option = config.policy_server, "policy_server.signing_key_path"
    if not policy.enabled:
        return
    if policy.signing_key_path is None:
        problem, remedy = (
            "is missing",
            "name a file with a line `ed25519 policy_server KEY`, KEY being base64 of 32 random bytes",
        )
        raise ConfigError(place(option), option, problem, remedy)
    try:
        seed = policy.read_key()
    except (OSError, ValueError, IndexError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds no key"
        problem = f"names {policy.signing_key_path}, which cannot be used ({reason})"
        raise ConfigError(place(option), option, problem, "write a line `ed25519 policy_server KEY` into it") from None
    if seed.seed in {own.seed for own in config.keys.read_signing_keys()}:
        problem = "has the key that the server signs its events with"
        raise ConfigError(place(option), option, problem, "make one of its own, so that rooms can part with it")
