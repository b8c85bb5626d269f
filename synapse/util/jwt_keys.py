"""Keys that JSON web tokens are checked with, by the algorithm that they are signed with.

Kept apart from the configuration and from those who check tokens, which both have to know what a key is.
"""

from __future__ import annotations

from typing import Any, Final

SHARED: Final = ("HS256", "HS384", "HS512")
"""Algorithms with one secret for both sides; those of `SIGNED` have a private key there, and the public one here."""
SIGNED: Final = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
}


def key_of(algorithm: str, secret: str) -> Any:
    """The key in joserfc's form. Raises `ValueError` for what is none of that algorithm's."""
    import warnings

    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, OctKey, RSAKey

    if algorithm in SHARED:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a short secret: the administrator is told by the configuration
            return OctKey.import_key(secret)
    kinds: dict[str, Any] = {"RSA": RSAKey, "EC": ECKey}
    try:
        return kinds[SIGNED[algorithm]].import_key(secret)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"no public key for {algorithm}") from error
