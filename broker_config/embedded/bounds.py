"""The embedded broker's own bounds, beside those of the contract in ``broker_config.limits``."""

from dataclasses import dataclass
from typing import Final

from broker_config import limits
from broker_config.limits import KIB
from broker_config.policy import Role

CONNECT_WAIT_S: Final = 10.0
"""From the accepted socket to the end of its handshake, and from there to its CONNECT."""
KEEP_ALIVE_GRACE: Final = 1.5
"""Source: MQTT 5.0, section 3.1.2.10."""
SESSION_EXPIRY_S_MAX: Final = 3_600
"""Whatever expiry a client asks for; as rendered for Mosquitto."""
PACKET_ID_MAX: Final = 65_535
TOPIC_LEVELS_MAX: Final = 32
"""Of a topic and of a filter; the contract's have six."""
FILTERS_AT_ONCE_MAX: Final = 2_048
"""In one SUBSCRIBE or UNSUBSCRIBE."""
RETAINED_MESSAGES_MAX: Final = 2 * limits.CONNECTIONS_MAX
RETAINED_BYTES_MAX: Final = 256 * 1024 * KIB
VERDICTS_REMEMBERED_MAX: Final = 65_536
"""Answers of the policy table that are kept for the next message of the same kind."""


@dataclass(frozen=True, slots=True)
class RoleBounds:
    """What one client of a role may take of the broker's memory."""

    connections_max: int
    sessions_max: int
    subscriptions_max: int
    retained_max: int
    """Topics on which one client's message is retained; a broker cannot compute the shard, so a device could else
    leave one in every shard that it makes up."""
    queued_messages_max: int
    queued_bytes_max: int
    write_buffer_bytes_max: int
    """Beyond it the client's messages wait in its queue, where they are counted."""


BOUNDS: Final = {
    Role.DEVICE: RoleBounds(
        connections_max=limits.CONNECTIONS_MAX,
        sessions_max=2 * limits.CONNECTIONS_MAX,
        subscriptions_max=64,
        retained_max=4,
        queued_messages_max=limits.DEVICE_QUEUE_MESSAGES_MAX,
        queued_bytes_max=limits.QUEUED_BYTES_MAX,
        write_buffer_bytes_max=256 * KIB,
    ),
    Role.SERVER: RoleBounds(
        connections_max=limits.SERVER_CONNECTIONS_MAX,
        sessions_max=4 * limits.SERVER_CONNECTIONS_MAX,
        subscriptions_max=2_048,
        retained_max=RETAINED_MESSAGES_MAX,
        queued_messages_max=limits.QUEUED_MESSAGES_MAX,
        queued_bytes_max=limits.QUEUED_BYTES_MAX,
        write_buffer_bytes_max=1024 * KIB,
    ),
}
