"""What answers for the server as such: health, discovery, media, signing keys, administration of media."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.rest.rows.types import Row

if TYPE_CHECKING:
    from synapse.app._homeserver import Homeserver

# -- the process, discovery -------------------------------------------------------------------------------------------


def _operation(hs: Homeserver) -> object:
    from synapse.rest.operation import Operation

    return Operation(hs.config.server.server_name, hs.drain)


def _versions(hs: Homeserver) -> object:
    from synapse.rest.client.versions import Versions

    return Versions()


def _well_known(hs: Homeserver) -> object:
    from synapse.rest.client.versions import WellKnown

    config = hs.config
    return WellKnown(config.server.server_name, config.client_baseurl, config.discovery)


# -- media, server keys -----------------------------------------------------------------------------------------------


def _media(hs: Homeserver) -> object:
    from synapse.rest.media.content import MediaContent

    return MediaContent(hs.accounts.media)


def _admin_media(hs: Homeserver) -> object:
    from synapse.rest.admin.media import AdminMedia

    return AdminMedia(hs.accounts.media_admin)


def _server_keys(hs: Homeserver) -> object:
    from synapse.rest.key.server import KeyServer

    return KeyServer(hs.federation.server_keys)


def _federation_version(hs: Homeserver) -> object:
    from synapse.rest.federation.version import FederationVersion

    return FederationVersion()


def _third_party_bound(hs: Homeserver) -> object:
    from synapse.rest.federation.third_party import ThirdPartyBound

    return ThirdPartyBound(hs.rooms.third_party_invites)


# -- the rows --------------------------------------------------------------------------------------------------------

ROWS: tuple[Row, ...] = (
    Row(("health", "metrics", "welcome"), _operation),
    Row(("versions",), _versions),
    Row(("well_known_client", "well_known_server", "well_known_support"), _well_known),
    Row(
        (
            *("media_upload", "media_create", "media_upload_to", "media_config", "media_config_authenticated"),
            *("media_download", "media_download_authenticated", "media_thumbnail", "media_thumbnail_authenticated"),
        ),
        _media,
    ),
    Row(("admin_purge_media_cache", "admin_room_media", "admin_quarantine_room_media"), _admin_media),
    Row(("third_party_bound",), _third_party_bound),
    Row(("server_keys",), _server_keys),
    Row(("federation_version",), _federation_version),
)
