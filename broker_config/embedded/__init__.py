"""A small MQTT 5 broker that executes the policy table itself: for the demo, the tests and a single station.

It keeps everything in memory and may lose all of it when it dies, which the receipts allow and nothing else about it
makes good; one process, one core. For anything larger there is Mosquitto, rendered from the same table. The
conformance suite holds both to the same expectations.

QoS 0 and 1; no QoS 2 (at most 1 is granted), no ``$share``, no ``$SYS``, no topic aliases from clients.

``tree``, ``retained``, ``session``, ``router`` and ``connection`` decide, on values and an injected clock; ``server``
is the only one that opens sockets. The agent never imports this package.
"""

from broker_config.embedded.server import CannotListenError, Embedded, EmbeddedSite

__all__ = ["CannotListenError", "Embedded", "EmbeddedSite"]
