"""How this server's parts connect to the broker: each by a name of its own, so that none takes another's session."""

import ssl

from broker_config.ids import SiteId, Work, server_client_id
from fleet_server.adapters.mqtt import LinkSettings
from fleet_server.config import Config


def link_settings(config: Config, security: ssl.SSLContext, *, work: Work) -> LinkSettings:
    """Of the part that does *work*, for this server's shards."""
    first, last = config.shards
    return LinkSettings(
        host=config.broker.host,
        port=config.broker.port,
        client_id=server_client_id(SiteId(config.site_id), f"{first:02x}-{last:02x}", work=work),
        keep_alive_s=config.broker.keep_alive_s,
        security=security,
    )
