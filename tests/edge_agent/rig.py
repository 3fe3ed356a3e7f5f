"""A real agent beside a real broker, and a server so small that a test can read what it got: it receipts what it is
told to."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker_config import mac, messages, telemetry, topics
from broker_config.ids import DeviceId
from broker_config.mac import Purpose
from broker_config.messages import AskTime, Birth, CommandStatus, Message, Receipt, ServerState, Time, Will
from broker_config.ranges import RangeSet
from broker_config.telemetry import Key, Record
from broker_config.topics import Down, Up
from tests.servers import HOST, Site

DEVICE = DeviceId("car-7")
KID = "00c0ffee"
RECEIPT_SECRET = bytes(range(32))
TIME_SECRET = bytes(range(32, 64))
CANCEL_AGAIN_S = 0.1
WAIT_S = 20.0
POLL_S = 0.05


@dataclass(slots=True)
class Rig:
    """The files of one device."""

    directory: Path
    config: Path
    module: str = "edge_agent"

    @property
    def state_dir(self) -> Path:
        return self.directory / "state"

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", self.module, *arguments, "--config", str(self.config)]

    def status(self) -> dict[str, object]:
        """What ``edge-agent status --json`` says."""
        done = subprocess.run(self.command("status", "--json"), capture_output=True, check=True)
        told = json.loads(done.stdout)
        assert isinstance(told, dict)
        return told


def lay_out(directory: Path, broker: Site | None, *, extra: str = "", profile: str = "host", top: str = "") -> Rig:
    """Files of a device; without a broker it has nowhere to connect to."""
    directory.mkdir(exist_ok=True)
    (directory / "mac.json").write_text(
        json.dumps({"kid": KID, "receipt": RECEIPT_SECRET.hex(), "time": TIME_SECRET.hex()})
    )
    (directory / "mac.json").chmod(0o600)
    if broker is None:
        for name in ("ca", "crt", "key"):
            (directory / name).touch()
        paths, port = (str(directory / "ca"), str(directory / "crt"), str(directory / "key")), 1
    else:
        credentials = broker.device(DEVICE)
        paths, port = (str(credentials.ca), str(credentials.certificate), str(credentials.key)), broker.device_port
    config = directory / "agent.toml"
    config.write_text(
        f'device = "{DEVICE}"\ndevice_class = "host"\nprofile = "{profile}"\nseal_s = 0.3\n{top}\n'
        f'[broker]\nhost = "{HOST}"\nport = {port}\n'
        f'ca_file = "{paths[0]}"\ncert_file = "{paths[1]}"\nkey_file = "{paths[2]}"\nkeep_alive_s = 5\n'
        '[receipts]\nmac_file = "mac.json"\nreceipt_wait_s = 1.0\n'
        "[backoff]\ns_min = 0.1\ns_cap = 0.5\nstable_s = 5\n"
        f"{extra}"
    )
    return Rig(directory, config)


def fast_profile(directory: Path, every_s: float = 0.2) -> str:
    """The host's cpu and memory at a quick cadence; returns the profile's path."""
    directory.mkdir(exist_ok=True)
    path = directory / "quick.toml"
    wires = "".join(
        f'[[wires]]\nstream = "{stream}"\ndriver = "host.{stream}"\nevery_s = {every_s}\n'
        for stream in ("cpu", "memory")
    )
    path.write_text(f'device_class = "host"\n{wires}')
    return str(path)


@contextlib.contextmanager
def agent(rig: Rig, *prefix: str) -> Iterator[subprocess.Popen[bytes]]:
    """A running agent, killed with the block if it still runs."""
    with (rig.directory / "log").open("ab") as log:
        command = [*prefix, *rig.command("run", "--log-level", "debug")]
        process = subprocess.Popen(command, stderr=log, stdout=log, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a prefix may stand between the agent and a signal
        process.wait()


async def stop(process: subprocess.Popen[bytes]) -> int:
    """A clean stop, while the server goes on; returns the exit code."""
    process.send_signal(signal.SIGTERM)
    return await asyncio.to_thread(process.wait, WAIT_S)


async def poll(ready: Callable[[], bool], what: str) -> None:
    """Wait for what no message tells."""
    deadline = time.monotonic() + WAIT_S
    while not ready():
        assert time.monotonic() < deadline, f"not within {WAIT_S} s: {what}"
        await asyncio.sleep(POLL_S)


async def _nothing(_channel: Up, _payload: bytes) -> None:
    pass


@dataclass(slots=True)
class Server:
    """What came, and what to answer. ``receipts`` off: the server holds its tongue."""

    client: aiomqtt.Client
    receipts: bool = True
    tells_time: bool = True
    times_told: int = 0
    store_epoch: int = 1
    clock_add_ms: int = 0
    births: list[Birth] = field(default_factory=list)
    wills: list[Will] = field(default_factory=list)
    statuses: list[CommandStatus] = field(default_factory=list)
    records: dict[Key, bytes] = field(default_factory=dict)
    conflicts: list[Key] = field(default_factory=list)
    repeated: int = 0
    other: Callable[[Up, bytes], Awaitable[None]] = _nothing
    """Takes what is said of uploads and twins, by who subscribes to it."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def decoded(self, stream: str) -> list[Record]:
        """All records of a stream, in the order of their keys."""
        return [
            telemetry.decode(self.records[key], "application/zlib" if self.records[key][:1] == b"\x78" else None)
            for key in sorted(self.records)
            if key.stream == stream
        ]

    def event_kinds(self) -> list[str]:
        """Of the journal, in its order."""
        return [
            event.kind
            for record in self.decoded(telemetry.JOURNAL)
            if isinstance(record, telemetry.Events)
            for event in record.events
        ]

    async def until(self, ready: Callable[[], bool], what: str, seconds: float = WAIT_S) -> None:
        """Wait for messages until *ready*."""
        try:
            async with asyncio.timeout(seconds):
                while not ready():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {seconds} s: {what}") from None

    async def hear(self) -> None:
        """Take messages until cancelled."""
        async for message in self.client.messages:
            assert isinstance(message.payload, bytes)
            topic = topics.parse_up(str(message.topic))
            if topic.channel is Up.STATUS:
                status = messages.decode_status(message.payload)
                if isinstance(status, Birth):
                    self.births.append(status)
                else:
                    self.wills.append(status)
            elif topic.channel is Up.TIME:
                if self.tells_time:
                    await self._answer_time(messages.decode(message.payload, AskTime))
            elif topic.channel is Up.COMMAND:
                self.statuses.append(messages.decode(message.payload, CommandStatus))
            elif topic.channel in {Up.UPLOAD, Up.CHUNK, Up.TWIN}:
                await self.other(topic.channel, message.payload)
            else:
                assert message.properties is not None
                properties = dict(getattr(message.properties, "UserProperty", ()))
                key = telemetry.parse_key(properties[telemetry.PROPERTY_KEY])
                self._take(key, message.payload)
                if self.receipts:
                    await self.receipt(key.stream, key.life)
            self._changed.set()

    def _take(self, key: Key, payload: bytes) -> None:
        if key in self.records:
            self.repeated += 1
            if self.records[key] != payload:
                self.conflicts.append(key)
            return
        self.records[key] = payload

    async def _answer_time(self, asked: AskTime) -> None:
        now_ms = time.time_ns() // 1_000_000 + self.clock_add_ms
        await self.say(Down.TIME, Time(1, asked.nonce, now_ms, 1), Purpose.TIME, TIME_SECRET)
        self.times_told += 1

    async def receipt(self, stream: str, life: str, *, conflict: tuple[tuple[int, int], ...] = ()) -> None:
        """Tell what is held."""
        held = RangeSet()
        for key in sorted(self.records):
            if (key.stream, key.life) == (stream, life):
                held.add(key.seq)
        told = Receipt(1, stream, life, held.last, held.holes(held.last)[:64], conflict, self.store_epoch)
        await self.say(Down.RECEIPT, told, Purpose.RECEIPT, RECEIPT_SECRET)

    async def say(self, channel: Down, message: Message, purpose: Purpose, secret: bytes) -> None:
        """A message with its mac."""
        topic = topics.down(DEVICE, channel)
        payload = messages.encode(message)
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.UserProperty = [
            ("mac", mac.mac(secret, purpose, topic, payload)),
            ("kid", KID),
        ]
        await self.client.publish(topic, payload, qos=1, properties=properties)

    async def announce(self, state: ServerState) -> None:
        """The retained state of the server."""
        await self.client.publish(topics.SERVER_STATE, messages.encode(state), qos=1, retain=True)


@contextlib.asynccontextmanager
async def server(broker: Site) -> AsyncIterator[Server]:
    """A server that hears from the start."""
    credentials = broker.server()
    async with aiomqtt.Client(
        HOST,
        broker.server_port,
        identifier="_ingest-00-ff-" + broker.site,
        protocol=aiomqtt.ProtocolVersion.V5,
        tls_params=aiomqtt.TLSParameters(
            ca_certs=str(credentials.ca), certfile=str(credentials.certificate), keyfile=str(credentials.key)
        ),
    ) as client:
        found = Server(client)
        for channel in (Up.STATUS, Up.TELEMETRY, Up.EVENT, Up.TIME, Up.COMMAND):
            await client.subscribe(topics.up_filter(channel), qos=1)
        hearing = asyncio.create_task(found.hear())
        try:
            yield found
        finally:
            # Python 3.11's wait_for, in which the client publishes, may swallow a cancellation that meets its result
            while not hearing.done():
                hearing.cancel()
                await asyncio.wait({hearing}, timeout=CANCEL_AGAIN_S)
            await asyncio.gather(hearing, return_exceptions=True)


def rss_kib(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"no process {pid}")
