"""Orders a device about: has it signed, and says it to the device. The same for every kind."""

from collections.abc import Callable
from typing import Final

from broker_config import topics
from broker_config.ids import DeviceId
from broker_config.signing import Command, Kind
from broker_config.topics import Down
from fleet_server.access.signing import Request, Signer, command_request

CHANNELS: Final = {Kind.TWIN: Down.TWIN, Kind.COMMAND: Down.COMMAND, Kind.EVIDENCE_RECEIPT: Down.UPLOAD}
"""Where a device listens for it; firmware is fetched, not said."""

Publish = Callable[[str, bytes], None]
"""Topic and payload to the broker; waits while it has no room."""


def send(request: Request, *, signer: Signer, publish: Publish) -> bytes:
    """Sign and say it; returns the envelope, which may be said again until it expires: the device obeys it once.

    Raises:
        SignerError: it was not signed, and nothing was said.
        And what *publish* raises: it is signed, and perhaps was not said.
    """
    envelope = signer.sign(request)
    publish(topics.down(request.target, CHANNELS[request.kind]), envelope)
    return envelope


def command(device: DeviceId, order: Command, *, lifetime_ms: int, signer: Signer, publish: Publish) -> bytes:
    """:func:`send` a command."""
    return send(command_request(device, order, lifetime_ms=lifetime_ms), signer=signer, publish=publish)
