"""Many device identities, each with one numbered stream, that speak through one gateway. Pure.

They have no births and no sessions: the numbers, the keys beside them and the receipts are a device's own.
"""

import random
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from broker_config import limits, mac, messages, telemetry, topics
from broker_config.ids import ContractError, DeviceId
from broker_config.mac import MacKey, Purpose
from broker_config.messages import Receipt
from broker_config.telemetry import PROPERTY_KEY, PROPERTY_LAST, Batch, Clock
from broker_config.topics import Down, Up
from fleet_server.cli.simulate import readings
from fleet_server.cli.simulate.device import Moment, Publish

DEVICE_CLASS: Final = "host"
VALUES: Final = 3
CLOCK: Final = Clock("ntp", 0, 40)
OUTSTANDING_MAX: Final = 200_000
"""Messages without a receipt; beyond that no new ones are made."""


class Waiting(NamedTuple):
    """A message without a receipt: when it was first sent, and last."""

    first_s: float
    last_s: float
    message: Publish


class Identities:
    """Each of *names* in turn says one row of three values. *key*: what an identity checks receipts with."""

    def __init__(
        self,
        names: Sequence[DeviceId],
        *,
        key: Callable[[DeviceId], MacKey],
        rng: random.Random,
        begin: Moment,
        life: str,
    ) -> None:
        self.refused = 0
        self.lost = 0
        self.waits_s = array("d")
        self.last = array("I", bytes(4 * len(names)))
        self._names = names
        self._places = {name: at for at, name in enumerate(names)}
        self._key = key
        self._rng = rng
        self._signal = readings.signals(DEVICE_CLASS, ("network",))[0]
        self._values = readings.start(self._signal, rng)
        self._life = life
        self._boot = f"{rng.getrandbits(64):016x}"
        self._begin = begin
        self._receipted = array("I", bytes(4 * len(names)))
        self._next = 0
        self._waiting: OrderedDict[tuple[int, int], Waiting] = OrderedDict()

    @property
    def sent(self) -> int:
        """Numbers given."""
        return sum(self.last)

    @property
    def waiting(self) -> int:
        """Numbers without a receipt."""
        return len(self._waiting)

    @property
    def stream(self) -> str:
        """Of all of them."""
        return self._signal.stream

    @property
    def life(self) -> str:
        """Of all of them: a life is a device's own, and may be called as another's."""
        return self._life

    def say(self, count: int, now: Moment) -> Iterator[Publish]:
        """The next *count* messages, fewer if too many wait for a receipt."""
        names = self._signal.names[:VALUES]
        for _ in range(min(count, OUTSTANDING_MAX - len(self._waiting))):
            at, self._next = self._next, (self._next + 1) % len(self._names)
            self.last[at] += 1
            seq, device = self.last[at], self._names[at]
            (row,) = readings.rows(self._signal, self._values, 1, self._rng)
            mono_ms = int((now.s - self._begin.s) * 1000)
            batch = Batch(
                1, self.stream, self._life, seq, self._boot, now.ms, mono_ms, CLOCK, names, [0], [row[:VALUES]]
            )
            body, content_type = telemetry.encode(batch)
            key = telemetry.key_text(self.stream, self._life, seq)
            message = Publish(
                topics.up(device, Up.TELEMETRY),
                body,
                content_type,
                ((PROPERTY_KEY, key), (PROPERTY_LAST, str(seq))),
            )
            self._waiting[at, seq] = Waiting(now.s, now.s, message)
            yield message

    def overdue(self, now: Moment, *, all_of_them: bool = False) -> list[Publish]:
        """What has waited too long for a receipt and goes out again."""
        out: list[Publish] = []
        for place, (first_s, last_s, message) in list(self._waiting.items()):
            if not all_of_them and now.s - last_s < limits.RECEIPT_WAIT_S:
                break  # ordered by when they were last sent
            self._waiting[place] = Waiting(first_s, now.s, message)
            self._waiting.move_to_end(place)
            out.append(message)
        return out

    def told(self, topic: str, body: bytes, properties: Mapping[str, str], now: Moment) -> None:
        """A receipt has come; one that is not authentic changes nothing and is counted in ``refused``."""
        at = self._places.get(DeviceId(topic.split("/")[3])) if topic.count("/") == 5 else None
        if at is None:
            return
        device = self._names[at]
        key = self._key(device)
        if topic != topics.down(device, Down.RECEIPT) or not mac.authentic(
            key, Purpose.RECEIPT, topic, body, dict(properties)
        ):
            self.refused += 1
            return
        try:
            receipt = messages.decode(body, Receipt)
        except ContractError:
            self.refused += 1
            return
        if receipt.stream != self.stream or receipt.life != self._life:
            return
        missing = {seq for low, high in receipt.missing for seq in range(low, min(high, self.last[at]) + 1)}
        for seq in range(1, min(receipt.up_to, self.last[at]) + 1):
            waiting = None if seq in missing else self._waiting.pop((at, seq), None)
            if waiting is not None:
                self._receipted[at] += 1
                self.waits_s.append(now.s - waiting.first_s)
            elif seq in missing and (at, seq) not in self._waiting:
                self.lost += 1

    def numbers(self) -> dict[str, int]:
        """Device -> newest number, of those that spoke."""
        return {name: last for name, last in zip(self._names, self.last, strict=True) if last}
