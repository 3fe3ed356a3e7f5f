"""A device with a good certificate and bad intentions: says anything at all, and hears what it is told."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Self

import mqtt5
import msgspec

from broker_config import topics
from broker_config.ids import DeviceId
from broker_config.messages import Birth, Receipt, StreamState, decode, encode
from broker_config.ranges import minus
from broker_config.telemetry import CONTENT_JSON, PROPERTY_KEY, PROPERTY_LAST, key_text
from broker_config.topics import Down, Up, down, up
from tests.contract.wire import Client
from tests.faults.rig import Rig, epoch_ms

LIFE: Final = "0123456789abcdef"
BOOT: Final = "00000000000000b0"
EPOCH: Final = "00000000000000e0"
RECEIPT_S_MAX: Final = 10.0

Body = dict[str, object]


def batch(seq: int, *, stream: str = "cpu", life: str = LIFE, t_ms: int | None = None, **changes: object) -> Body:
    """A good batch of one row, but for *changes*."""
    body: Body = {
        "t": "batch",
        "v": 1,
        "stream": stream,
        "life": life,
        "seq": seq,
        "boot": BOOT,
        "t0": epoch_ms() if t_ms is None else t_ms,
        "mono": 1_000_000 + 1000 * seq,
        "clock": {"src": "ntp", "off_ms": 0, "unc_ms": 10},
        "fields": ["cpu_pct", "load_1m"],
        "dt": [0],
        "rows": [[12.5, float(seq)]],
    }
    return body | changes


def json_of(body: Mapping[str, object]) -> bytes:
    """As a device would write it."""
    return msgspec.json.encode(body)


class Hostile:
    """One connection of *device*, subscribed to what it is told."""

    def __init__(self, rig: Rig, device: DeviceId) -> None:
        self.device = device
        self._rig = rig
        self._receipts: list[Receipt] = []
        self._connect()

    def _connect(self) -> None:
        self.client = Client(self._rig.broker.device_port, self._rig.device_credentials(self.device))
        self.client.connect(self.device, keep_alive_s=120)
        self.client.subscribe(topics.down_filter(self.device))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.vanish()

    def again(self) -> None:
        """A new connection, whatever became of the one before."""
        self.client.vanish()
        self._connect()

    def say(
        self,
        payload: bytes,
        *,
        key: str | None,
        channel: Up | str = Up.TELEMETRY,
        last: str | None = None,
        content_type: str | None = CONTENT_JSON,
        topic: str | None = None,
        retain: bool = False,
        **options: object,
    ) -> None:
        """Publish with QoS 1; returns once the broker has dealt with it, whatever it did."""
        properties: list[tuple[str, str]] = []
        if key is not None:
            properties.append((PROPERTY_KEY, key))
        if last is not None:
            properties.append((PROPERTY_LAST, last))
        packet = mqtt5.PublishPacket(
            topic or f"{topics.base(self.device)}/up/{channel}",
            payload,
            qos=mqtt5.QoS.AT_LEAST_ONCE,
            packet_id=self.client._new_id(),
            retain=retain,
            content_type=content_type,
            user_properties=properties,
            **options,  # type: ignore[arg-type]
        )
        self.client.send(packet.write())
        self.client._next(mqtt5.PubAckPacket)

    def say_good(self, seq: int, *, stream: str = "cpu", life: str = LIFE, last: int | None = None) -> bytes:
        """A good batch; return its bytes."""
        payload = json_of(batch(seq, stream=stream, life=life))
        self.say(payload, key=key_text(stream, life, seq), last=str(seq if last is None else last))
        return payload

    def be_born(self, streams: Sequence[StreamState]) -> None:
        """A good birth."""
        birth = Birth(1, EPOCH, BOOT, 1, 30, "hostile/1", "host", "host", 0, 1000, tuple(streams))
        self.say(encode(birth), key=None, topic=up(self.device, Up.STATUS), retain=True)

    def receipt(self, fits: Callable[[Receipt], bool], what: str) -> Receipt:
        """The first receipt that *fits*, of those that came or come."""
        deadline = time.monotonic() + RECEIPT_S_MAX
        while time.monotonic() < deadline:
            for told in self._receipts:
                if fits(told):
                    return told
            self._hear()
        raise AssertionError(f"{self.device}: no receipt that {what}; got {self._receipts[-3:]}")

    def receipted(self, seq: int, *, stream: str = "cpu", life: str = LIFE) -> Receipt:
        """Wait until *seq* is covered."""

        def covers(told: Receipt) -> bool:
            return (told.stream, told.life) == (stream, life) and bool(
                minus(((seq, min(seq, told.up_to)),), told.missing)
            )

        return self.receipt(covers, f"covers {stream}/{life}/{seq}")

    def heard(self) -> list[Receipt]:
        """Every receipt so far: what had been sent before the broker answered a ping."""
        self.client.ping()
        while self.client.pending():
            self._take(self.client.receive())
        return list(self._receipts)

    def _hear(self) -> None:
        try:
            self._take(self.client.receive())
        except TimeoutError:
            return

    def _take(self, message: mqtt5.PublishPacket) -> None:
        if message.topic == down(self.device, Down.RECEIPT):
            self._receipts.append(decode(bytes(message.payload), Receipt))
