"""One client's session: what it subscribed to, what waits for it, and what it has not acknowledged."""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from broker_config.embedded.bounds import PACKET_ID_MAX
from broker_config.embedded.message import Key, Message
from broker_config.policy import Identity


@dataclass(frozen=True, slots=True)
class Subscription:
    """How one client wants the messages of one filter; ``qos`` is what was granted."""

    pattern: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    subscription_id: int | None = None


class Delivery(NamedTuple):
    """A message on its way to one client."""

    message: Message
    qos: int
    retain: bool
    subscription_ids: tuple[int, ...]


class Sending(NamedTuple):
    """A delivery to be written now; ``packet_id`` None for QoS 0."""

    delivery: Delivery
    packet_id: int | None
    duplicate: bool


class Session:
    """Lives from its first connection until its expiry; knows of no socket and no clock.

    The order of what was offered is the order of what is sent, whatever its QoS. What is in flight counts into the
    bytes that it may hold and not into the messages, which are bounded by the window.
    """

    def __init__(self, key: Key, identity: Identity, *, messages_max: int, bytes_max: int) -> None:
        self.key = key
        self.identity = identity
        self.subscriptions: dict[str, Subscription] = {}
        self.expiry_s = 0
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._window = PACKET_ID_MAX
        self._queue: deque[Delivery] = deque()
        self._again: deque[tuple[int, Delivery]] = deque()
        self._in_flight: dict[int, Delivery] = {}
        self._held_bytes = 0
        self._last_id = 0

    def __repr__(self) -> str:
        return f"Session({self.key}, {len(self._queue)} queued, {len(self._in_flight)} in flight)"

    @property
    def queued(self) -> int:
        """Messages that wait to be sent for the first time."""
        return len(self._queue)

    @property
    def in_flight(self) -> int:
        """Messages sent on this connection and not acknowledged."""
        return len(self._in_flight)

    @property
    def held_bytes(self) -> int:
        """Of all that waits or is in flight."""
        return self._held_bytes

    def begin(self, receive_max: int) -> None:
        """A connection begins: what an earlier one did not acknowledge is sent again, first and in its order."""
        self._window = min(receive_max, PACKET_ID_MAX)
        self._again = deque([*self._in_flight.items(), *self._again])
        self._in_flight.clear()

    def end(self) -> None:
        """The connection is over: what it was to get at most once, it does not get."""
        kept = [delivery for delivery in self._queue if delivery.qos]
        self._held_bytes -= sum(d.message.size_bytes for d in self._queue if not d.qos)
        self._queue = deque(kept)

    def offer(self, delivery: Delivery) -> bool:
        """Put it last. False: over a bound, and the message is dropped."""
        size_bytes = delivery.message.size_bytes
        if len(self._queue) >= self._messages_max or self._held_bytes + size_bytes > self._bytes_max:
            return False
        self._queue.append(delivery)
        self._held_bytes += size_bytes
        return True

    def next(self, now_s: float) -> Sending | None:
        """What to send now, and count as in flight; None: nothing, or the client's receive maximum is reached."""
        if self._again:
            if len(self._in_flight) >= self._window:
                return None
            packet_id, delivery = self._again.popleft()
            self._in_flight[packet_id] = delivery
            return Sending(delivery, packet_id, duplicate=True)
        queue = self._queue
        while queue:
            delivery = queue[0]
            message = delivery.message
            if message.expires_s is not None and message.expired(now_s):
                queue.popleft()
                self._held_bytes -= message.size_bytes
                continue
            if not delivery.qos:
                queue.popleft()
                self._held_bytes -= message.size_bytes
                return Sending(delivery, None, duplicate=False)
            if len(self._in_flight) >= self._window:
                return None
            queue.popleft()
            packet_id = self._free_id()
            self._in_flight[packet_id] = delivery
            return Sending(delivery, packet_id, duplicate=False)
        return None

    def acknowledge(self, packet_id: int) -> bool:
        """Whether something of that id was in flight; after a resumption a client may acknowledge twice."""
        delivery = self._in_flight.pop(packet_id, None)
        if delivery is None:
            return False
        self._held_bytes -= delivery.message.size_bytes
        return True

    def _free_id(self) -> int:
        # Nothing new is sent before what is sent again, so only what is in flight has an id.
        packet_id = self._last_id
        while True:
            packet_id = packet_id % PACKET_ID_MAX + 1
            if packet_id not in self._in_flight:
                self._last_id = packet_id
                return packet_id
