"""The section of a configuration about logging in by JSON web tokens, which something else gives out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

from synapse.config.errors import ConfigError
from synapse.config.options import Doc, Secret, Section
from synapse.util.jwt_keys import SHARED, SIGNED, key_of

if TYPE_CHECKING:
    from synapse.config.root import Config

Place = Callable[[str | None], str]

_MIN_SECRET: Final = 32  # bytes


class JwtConfig(Section, frozen=True, kw_only=True):
    """Logging in by JSON web tokens (`jwt_config:`): whoever knows the key decides who users of this server are."""

    enabled: Annotated[bool, Doc("Whether users can log in by them.")] = False
    secret: Annotated[
        Secret | None,
        Doc(
            "What tokens are checked with: the shared secret for HS256, HS384 and HS512, and the public key (PEM) for "
            "other algorithms."
        ),
    ] = None
    algorithm: Annotated[
        str | None, Doc("How tokens are signed: this one algorithm, whatever they say.", example="RS256")
    ] = None
    subject_claim: Annotated[str, Doc("The claim that has the localpart of the user's id.")] = "sub"
    display_name_claim: Annotated[
        str | None, Doc("The claim that has the display name of a new user.", example="name")
    ] = None
    issuer: Annotated[str | None, Doc("Who must have issued the tokens (`iss`); unset: anybody.")] = None
    audiences: Annotated[
        tuple[str, ...],
        Doc(
            "Whom tokens must be meant for (`aud`): one of these. Without any, tokens that are meant for somebody are "
            "refused."
        ),
    ] = ()


def check_jwt(config: Config, place: Place) -> Iterator[str]:
    """Raises `ConfigError` for what no token could be checked by."""
    jwt = config.jwt_config
    if not jwt.enabled:
        return
    if jwt.algorithm is None or jwt.algorithm not in (*SHARED, *SIGNED):
        problem = "is missing" if jwt.algorithm is None else f"is {jwt.algorithm!r}, which is none that can be used"
        _fail(place, "algorithm", problem, f"write one of {', '.join((*SHARED, *SIGNED))}")
    if jwt.secret is None:
        _fail(place, "secret", "is missing", "write the key that tokens are checked with")
    if jwt.algorithm in SHARED:
        if jwt.secret.lstrip().startswith("-----BEGIN"):
            _fail(place, "secret", f"is a key, and {jwt.algorithm} has none", "write the algorithm that the key is for")
        if len(jwt.secret.encode()) < _MIN_SECRET:
            yield (
                f"{place('jwt_config')}: `jwt_config.secret` is short, and whoever guesses it can log in as anybody; "
                "let it be 32 random characters or more."
            )
        return
    if not config.is_main:  # the others need not load what reads keys
        return
    try:
        key = key_of(jwt.algorithm, jwt.secret)
    except ValueError:
        problem = f"is no public key (PEM) for {jwt.algorithm}"
        _fail(place, "secret", problem, "write the public key of whoever signs the tokens")
    if key.is_private:
        _fail(
            place, "secret", "is a private key", "write the public key that belongs to it, which is all it takes here"
        )


def _fail(place: Place, option: str, problem: str, remedy: str) -> NoReturn:
    raise ConfigError(place("jwt_config"), f"jwt_config.{option}", problem, remedy)
