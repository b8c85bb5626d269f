"""Clients for requests to the world outside, as the configuration wants them, and the key that some are signed with.

Making a client has the process load OpenSSL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from signedjson.types import SigningKey

    from synapse.config import Config
    from synapse.config.sections import SigningSeed
    from synapse.http.addresses import AddressFilter
    from synapse.http.outside import OutsideClient
    from synapse.http.peers import PeerClient


def to_users_hosts(config: Config, reactor: Any, verify: bool, authorities: tuple[str, ...] = ()) -> OutsideClient:
    """For hosts that users name: private networks are left out.

    :param authorities: files with the certificate authorities to believe, in place of the system's.
    """
    from synapse.http.addresses import AddressFilter
    from synapse.http.outside import OutsideClient, Trust

    options = config.outgoing
    addresses = AddressFilter(options.ip_range_blacklist, options.ip_range_whitelist)
    return OutsideClient(reactor, addresses, Trust(verify, authorities))


def to_servers(config: Config, reactor: Any) -> PeerClient:
    """For other homeservers."""
    from synapse.config.federation import certificate_needed
    from synapse.http.peers import PeerClient

    options = config.federating

    def verify(host: str) -> bool:
        return certificate_needed(options, host)

    return PeerClient(reactor, _servers_addresses(config), verify, options.federation_custom_ca_list)


def to_servers_files(config: Config, reactor: Any) -> OutsideClient:
    """For the files by which other homeservers say where they are."""
    from synapse.config.federation import certificate_needed
    from synapse.http.outside import OutsideClient, Trust

    options = config.federating
    trust = Trust(lambda host: certificate_needed(options, host), options.federation_custom_ca_list)
    return OutsideClient(reactor, _servers_addresses(config), trust)


def _servers_addresses(config: Config) -> AddressFilter:
    from synapse.http.addresses import AddressFilter

    blocked, outgoing = config.federating.federation_ip_range_blacklist, config.outgoing
    return AddressFilter(outgoing.ip_range_blacklist if blocked is None else blocked, outgoing.ip_range_whitelist)


def to_identity_servers(config: Config, reactor: Any) -> OutsideClient:
    """For identity servers that users name."""
    return to_users_hosts(config, reactor, not config.outgoing.use_insecure_ssl_client_just_for_testing_do_not_use)


def to_push_gateways(config: Config, reactor: Any) -> OutsideClient:
    """For push gateways, which clients name."""
    return to_users_hosts(config, reactor, not config.outgoing.use_insecure_ssl_client_just_for_testing_do_not_use)


def to_administrators_hosts(config: Config, reactor: Any) -> OutsideClient:
    """For services that the administrator names, who may well have them in private networks."""
    from synapse.http.addresses import AddressFilter
    from synapse.http.outside import OutsideClient, Trust

    verify = not config.outgoing.use_insecure_ssl_client_just_for_testing_do_not_use
    return OutsideClient(reactor, AddressFilter(()), Trust(verify))


def signing_key(config: Config) -> SigningKey:
    """The key that this server signs with: the first of the file."""
    return _key(config.keys.read_signing_keys()[0])


def policy_key(config: Config) -> SigningKey:
    """The key of the policy server that this server is; its version is the one that the specification gives it."""
    return _key(config.policy_server.read_key()._replace(version="policy_server"))


def _key(seed: SigningSeed) -> SigningKey:
    from signedjson.key import decode_signing_key_base64
    from unpaddedbase64 import encode_base64

    return decode_signing_key_base64(seed.algorithm, seed.version, encode_base64(seed.seed))
