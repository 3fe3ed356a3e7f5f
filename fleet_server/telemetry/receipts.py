"""Where a receipt is decided: what a device is told of one stream's numbers. Pure.

Call it when a commit's group closes, send the answer after that commit: then every number in it is durable.
"""

from broker_config import limits
from broker_config.mac import PROPERTY_KID, PROPERTY_MAC, MacKey, Purpose, mac
from broker_config.messages import Receipt, encode
from broker_config.ranges import Ranges, from_numbers, normal
from fleet_server.telemetry.ledger import StreamLedger


def receipt(ledger: StreamLedger, store_epoch: int) -> Receipt:
    """What is committed of a stream, once the group that was just closed is.

    With more holes than fit into one message ``up_to`` ends before the first that does not; the rest follows as
    the holes are filled.
    """
    up_to = ledger.top
    missing = ledger.missing(up_to)
    if len(missing) > limits.RANGES_MAX:
        up_to = missing[limits.RANGES_MAX][0] - 1
        missing = missing[: limits.RANGES_MAX]
    conflict: Ranges = ()
    if ledger.conflicts or ledger.behind:
        behind = (ledger.behind,) if ledger.behind else ()
        conflict = normal((*from_numbers(ledger.conflicts), *behind))[-limits.RANGES_MAX :]
    tip = ledger.tip() if up_to and up_to == ledger.top else None
    return Receipt(1, ledger.key.stream, ledger.key.life, up_to, missing, conflict, store_epoch, tip)


def signed(key: MacKey, topic: str, message: Receipt) -> tuple[str, bytes, list[tuple[str, str]]]:
    """Topic, payload and user properties of a receipt as it goes to the broker; *topic* is the device's."""
    payload = encode(message)
    return topic, payload, [(PROPERTY_KID, key.kid), (PROPERTY_MAC, mac(key.secret, Purpose.RECEIPT, topic, payload))]
