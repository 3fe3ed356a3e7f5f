"""A broker that says whatever it likes: the device does nothing of it, deletes nothing, and its journal says why.

Whoever holds the broker's certificate can say anything on any topic, and has heard every order that was ever sent.
What it cannot do is sign. The keys of the tests sign more than that: what an honest signer would never have signed.
"""

import hashlib
import json
import sqlite3
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker_config import messages, signing, topics
from broker_config.embedded.misbehaviour import Hostile
from broker_config.mac import Purpose
from broker_config.messages import Receipt, Time
from broker_config.signing import Claims, Envelope, Kind, Refusal, Signature
from broker_config.telemetry import Events
from broker_config.topics import Down
from edge_agent.adapters.counters import COUNTERS_NAME, Counters
from tests.edge_agent import rig as rigs
from tests.orders import ROOTS, SERVER, STRANGER, claims, command, envelope, order
from tests.servers import Mosquitto, Site, embedded, mosquitto

ORDERS: Final = '[orders]\nsigners_file = "signers.json"\n'
AHEAD_MS: Final = 5_000
"""An order's counter may be so far ahead of what is obeyed before it."""

Attack = Callable[["Scene"], bytes]


def lay_out(directory: Path, broker: Site, *, extra: str = "") -> rigs.Rig:
    """A device that trusts the tests' signers."""
    rig = rigs.lay_out(directory, broker, profile=rigs.fast_profile(directory), extra=ORDERS + extra)
    (directory / "signers.json").write_bytes(signing.encode(ROOTS))
    (directory / "signers.json").chmod(0o644)
    return rig


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Scene:
    """An agent that is connected, knows the time, and has obeyed one order."""

    def __init__(self, rig: rigs.Rig, broker: Site, server: rigs.Server) -> None:
        self.rig = rig
        self.broker = broker
        self.server = server
        self.obeyed = order(claims(at_ms=now_ms()))
        self.signed_so_far = 0

    def signed(self, body: object = None, **changes: object) -> Claims:
        """What an honest signer signs now; newer than all before."""
        at_ms = now_ms()
        self.signed_so_far += 1
        body = command(order_id=f"{self.signed_so_far:016x}") if body is None else body
        return claims(body, **{"at_ms": at_ms, "counter": at_ms + AHEAD_MS, **changes})  # type: ignore[arg-type]

    async def say(self, data: bytes, channel: Down = Down.COMMAND) -> None:
        """As the broker would, whoever sent it."""
        await self.server.client.publish(topics.down(rigs.DEVICE, channel), data, qos=1)

    async def told(self, count: int) -> list[str]:
        """The first *count* endings of orders."""

        def endings() -> list[str]:
            return [s.reason or s.state for s in self.server.statuses if s.state in {"done", "refused"}]

        await self.server.until(lambda: len(endings()) >= count, f"{count} endings", 60)
        return endings()

    def events(self, kind: str) -> list[dict[str, object]]:
        """Of the journal as the device holds it."""
        found: list[dict[str, object]] = []
        for _, payload in batches(self.rig):
            record = msgspec.json.decode(payload, type=Events) if b'"t":"events"' in payload else None
            found += [] if record is None else [dict(e.data) for e in record.events if e.kind == kind]
        return found


def batches(rig: rigs.Rig) -> list[tuple[int, bytes]]:
    """Every batch in the spool: its place and number, its bytes."""
    with closing(sqlite3.connect(f"file:{rig.state_dir / 'spool.db'}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT id, content, payload FROM batch ORDER BY id").fetchall()
    return [(at, zlib.decompress(payload) if content else payload) for at, content, payload in rows]


def digests(rig: rigs.Rig) -> dict[int, str]:
    return {at: hashlib.sha256(payload).hexdigest() for at, payload in batches(rig)}


def held(rig: rigs.Rig) -> dict[str, tuple[object, object, object]]:
    """What is marked as receipted, gone and trimmed of each stream."""
    streams = rig.status()["streams"]
    assert isinstance(streams, list)
    return {row["stream"]: (row["receipted"], row["gone"], row["trimmed"]) for row in streams}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path / "broker") as found:
        yield found


@pytest.fixture
async def scene(tmp_path: Path, broker: Mosquitto) -> AsyncIterator[Scene]:
    rig = lay_out(tmp_path / "device", broker)
    async with rigs.server(broker) as server:
        with rigs.agent(rig):
            made = Scene(rig, broker, server)
            await obey_one(made)
            yield made


async def obey_one(scene: Scene) -> None:
    """Once the device has asked the time, it obeys."""
    await scene.server.until(lambda: len(scene.server.records) >= 4, "records")
    await rigs.poll(lambda: floor(scene.rig) is not None, "the device knows since when it counts")
    scene.obeyed = order(claims(at_ms=now_ms()))
    await scene.say(scene.obeyed)
    assert await scene.told(1) == ["done"]


def floor(rig: rigs.Rig) -> int | None:
    return Counters(rig.state_dir / COUNTERS_NAME).load().floor


# What a hostile broker can say ----------------------------------------------------------------------------------


def changed(data: bytes, **changes: object) -> bytes:
    """An envelope with other outer fields."""
    return json.dumps(json.loads(data) | changes).encode()


def resigned(told: Claims, signature: Signature) -> bytes:
    return signing.encode(Envelope(signing.encode(told), signing.PAYLOAD_TYPE, (signature,)))


def by_the_device_itself(scene: Scene) -> bytes:
    """With the device's own key, under the name of the server's."""
    told = scene.signed()
    key = load_pem_private_key(scene.broker.device(rigs.DEVICE).key.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signed = signing.pre_authentication(signing.PAYLOAD_TYPE, signing.encode(told))
    return resigned(told, Signature(SERVER.keyid, key.sign(signed, ec.ECDSA(SHA256()))))


def with_the_signature_of_another(scene: Scene) -> bytes:
    """A genuine signature, of other bytes."""
    return resigned(scene.signed(), envelope(scene.signed(command("locate"))).signatures[0])


def under_another_type(scene: Scene) -> bytes:
    """Rightly signed, as something else."""
    payload = signing.encode(scene.signed())
    kind = "application/vnd.fieldfleet.receipt.v1+json"
    return signing.encode(Envelope(payload, kind, (SERVER.signature(payload, kind),)))


def by_a_stranger(scene: Scene) -> bytes:
    """Under the name of the server's key."""
    told = scene.signed()
    return resigned(told, STRANGER.signature(signing.encode(told), keyid=SERVER.keyid))


def expired(scene: Scene) -> bytes:
    """Held back until it was worth nothing."""
    return order(claims(at_ms=now_ms() - 62_000, counter=now_ms() + AHEAD_MS))  # two clocks are not one


ATTACKS: Final[dict[str, tuple[Refusal, Attack]]] = {
    "garbage": (Refusal.MALFORMED, lambda _: b"\x00\xff" * 50),
    "nothing": (Refusal.MALFORMED, lambda _: b""),
    "truncated": (Refusal.MALFORMED, lambda s: order(s.signed())[:-20]),
    "deeply nested": (Refusal.MALFORMED, lambda _: b'{"payload":' + b"[" * 100_000),
    "nested where nobody looks": (Refusal.MALFORMED, lambda s: order(s.signed())[:-1] + b',"x":' + b"[" * 90_000),
    "oversized": (Refusal.TOO_LARGE, lambda s: order(s.signed()) + b" " * signing.ENVELOPE_BYTES_MAX),
    "without signatures": (Refusal.MALFORMED, lambda s: changed(order(s.signed()), signatures=[])),
    "another payload type": (Refusal.MALFORMED, lambda s: changed(order(s.signed()), payloadType="text/plain")),
    "signed as another type": (Refusal.MALFORMED, under_another_type),
    "a name twice": (
        Refusal.MALFORMED,
        lambda s: signing.encode(
            Envelope(
                (twice := signing.encode(s.signed()).replace(b'"v":1', b'"v":1,"v":1', 1)),
                signing.PAYLOAD_TYPE,
                (SERVER.signature(twice),),
            )
        ),
    ),
    "an unknown key": (Refusal.UNKNOWN_KEY, lambda s: order(s.signed(), STRANGER)),
    "an unknown key under a known name": (Refusal.BAD_SIGNATURE, by_a_stranger),
    "the device's own key": (Refusal.BAD_SIGNATURE, by_the_device_itself),
    "another order's signature": (Refusal.BAD_SIGNATURE, with_the_signature_of_another),
    "another device's order": (Refusal.NOT_FOR_THIS_DEVICE, lambda s: order(s.signed(target="car-8"))),
    "another site's order": (Refusal.WRONG_SITE, lambda s: order(s.signed(site="5f" * 32))),
    "held back too long": (Refusal.EXPIRED, expired),
    "of the future": (Refusal.NOT_YET, lambda s: order(s.signed(at_ms=now_ms() + 600_000))),
    "replayed": (Refusal.REPLAYED, lambda s: s.obeyed),
    "with an older counter": (Refusal.REPLAYED, lambda s: order(s.signed(counter=1))),
    "a twin as a command": (Refusal.WRONG_KIND, lambda s: order(s.signed({}, kind=Kind.TWIN))),
    "hazardous by one": (Refusal.TOO_FEW_SIGNERS, lambda s: order(s.signed(command("recording.start")))),
}


@pytest.mark.server("mosquitto")
async def test_the_device_does_nothing_of_it_and_deletes_nothing(scene: Scene) -> None:
    await no_more_receipts(scene)
    before, marks, counters = (
        digests(scene.rig),
        held(scene.rig),
        Counters(scene.rig.state_dir / COUNTERS_NAME).load(),
    )
    for _, attack in ATTACKS.values():
        await scene.say(attack(scene))
    for data, channel in (
        (order(scene.signed()), Down.TWIN),
        (order(scene.signed({}, kind=Kind.TWIN), STRANGER), Down.TWIN),
        (order(scene.signed()), Down.UPLOAD),
        (order(scene.signed()), Down.RECEIPT),
        (order(scene.signed()), Down.TIME),
        (messages.encode(Receipt(1, "cpu", "0" * 16, 10**6, (), (), 2**40)), Down.RECEIPT),
        (messages.encode(Time(1, "0" * 16, 0, 0)), Down.TIME),
    ):
        await scene.say(data, channel)
    # a genuine mac, of the wrong purpose
    forged = Receipt(1, "cpu", life_of(scene.server), 10**6, (), (), 2**40)
    await scene.server.say(Down.RECEIPT, forged, Purpose.TIME, rigs.TIME_SECRET)
    told = await scene.told(2 + len(ATTACKS))
    expected = sorted(reason.value for reason, _ in ATTACKS.values())
    assert sorted(told[2:]) == expected
    assert [s.state for s in scene.server.statuses].count("obeyed") == 1
    assert Counters(scene.rig.state_dir / COUNTERS_NAME).load() == counters
    reasons = {reason.value for reason, _ in ATTACKS.values()}
    await rigs.poll(lambda: reasons <= {str(e["reason"]) for e in scene.events("command.refused")}, "the journal")
    assert len(scene.events("command.obeyed")) == len(scene.events("command.done")) == 1
    after = digests(scene.rig)
    assert {at: after.get(at) for at in before} == before
    assert {stream: held(scene.rig)[stream] for stream in marks} == marks
    # and it still obeys who may order it
    await scene.say(order(scene.signed()))
    assert (await scene.told(3 + len(ATTACKS)))[-1] == "done"


async def no_more_receipts(scene: Scene) -> None:
    """From now on; and those that came are written down."""
    scene.server.receipts = False
    await scene.say(b"the last thing before")
    await scene.told(2)
    records = len(scene.server.records)
    await scene.server.until(lambda: len(scene.server.records) >= records + 6, "newer records are stored and sent")


def life_of(server: rigs.Server) -> str:
    return next(key.life for key in server.records if key.stream == "cpu")


@pytest.mark.server("mosquitto")
async def test_negative_control_an_agent_that_skips_the_check_is_seen_to_obey(
    tmp_path: Path, broker: Mosquitto
) -> None:
    rig = lay_out(tmp_path / "device", broker)
    rig.module = "tests.faults.unchecked_agent"
    async with rigs.server(broker) as server:
        with rigs.agent(rig):
            scene = Scene(rig, broker, server)
            await obey_one(scene)
            await scene.say(by_a_stranger(scene))
            assert await scene.told(2) == ["done", "done"]


@pytest.mark.server("mosquitto")
@pytest.mark.parametrize("spool", ["kept", "lost", "damaged"])
async def test_killed_and_started_again_it_does_nothing_twice(tmp_path: Path, broker: Mosquitto, spool: str) -> None:
    rig = lay_out(tmp_path / "device", broker)
    async with rigs.server(broker) as server:
        scene = Scene(rig, broker, server)
        with rigs.agent(rig) as process:
            await obey_one(scene)
            second = order(scene.signed())
            await scene.say(second)
            await server.until(lambda: len([s for s in server.statuses if s.state == "obeyed"]) == 2, "it obeys")
            process.kill()
            process.wait()
        leave_spool(rig, spool)
        times = server.times_told
        with rigs.agent(rig) as process:
            await server.until(lambda: server.times_told > times, "it is back, and knows the time")
            ended = len(await scene.told(1))
            await scene.say(second)
            await scene.say(scene.obeyed)
            assert (await scene.told(ended + 2))[-2:] == ["replayed", "replayed"]
            assert await rigs.stop(process) == 0
    obeyed = [s for s in server.statuses if s.state == "obeyed"]
    assert len(obeyed) == 2


def leave_spool(rig: rigs.Rig, spool: str) -> None:
    """As the power cut left it."""
    for path in rig.state_dir.glob("spool.db*"):
        if spool == "lost":
            path.unlink()
        elif spool == "damaged":
            path.write_bytes(b"no spool" * 1000)


@pytest.mark.server("mosquitto")
async def test_a_device_whose_clock_nobody_set_obeys_nobody(tmp_path: Path, broker: Mosquitto) -> None:
    rig = lay_out(tmp_path / "device", broker, extra='[system]\nntp = "no"\n')
    async with rigs.server(broker) as server:
        server.tells_time = False
        with rigs.agent(rig):
            scene = Scene(rig, broker, server)
            await server.until(lambda: bool(server.births), "it is connected")
            await scene.say(order(scene.signed()))
            assert await scene.told(1) == ["clock_not_set"]


@pytest.mark.server("mosquitto")
async def test_a_flood_of_forged_orders_fills_neither_journal_nor_spool(scene: Scene) -> None:
    before = len(scene.server.event_kinds())
    for _ in range(300):
        await scene.say(b"x")
    await scene.told(301)
    records = len(scene.server.records)
    await scene.server.until(lambda: len(scene.server.records) > records + 6, "readings go on")
    refused = [k for k in scene.server.event_kinds()[before:] if k == "command.refused"]
    assert len(refused) == 1


async def test_behind_a_broker_that_repeats_delays_reorders_and_forges_each_order_is_obeyed_at_most_once(
    tmp_path: Path,
) -> None:
    with embedded(tmp_path / "broker", misbehaviour=Hostile(seed=7)) as broker:
        rig = lay_out(tmp_path / "device", broker)
        async with rigs.server(broker) as server:
            with rigs.agent(rig):
                scene = Scene(rig, broker, server)
                await server.until(lambda: len(server.records) >= 4, "records")
                await rigs.poll(lambda: floor(rig) is not None, "the device knows since when it counts")
                ids = [f"{n:016x}" for n in range(1, 13)]
                for name in ids:
                    await scene.say(order(scene.signed(command(order_id=name))))
                await server.until(lambda: any(s.state == "done" for s in server.statuses), "some are obeyed", 60)
                await scene.told(len(ids))
    # an order that comes again is answered by what became of it
    done = [s.id for s in server.statuses if s.state == "done" and s.reason != "replayed"]
    assert len(done) == len(set(done))
    assert set(done) <= set(ids)
    assert done == sorted(done)
