"""A real agent over a real broker. What the server got is what counts, never what the agent says of itself."""

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_config import limits, messages
from broker_config.mac import Purpose
from broker_config.messages import Receipt, ServerState, Will
from broker_config.ranges import from_numbers
from broker_config.telemetry import GENESIS, JOURNAL, Batch, Events
from broker_config.topics import Down
from edge_agent.adapters import files
from edge_agent.identity import Pair
from tests.disks import mounted
from tests.edge_agent import rig as rigs
from tests.servers import Mosquitto, mosquitto

pytestmark = pytest.mark.server("mosquitto")

DAY_MS = 86_400_000


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path / "broker") as found:
        yield found


@pytest.fixture
def rig(tmp_path: Path, broker: Mosquitto) -> rigs.Rig:
    return rigs.lay_out(tmp_path / "device", broker, profile=rigs.fast_profile(tmp_path / "device"))


def complete(server: rigs.Server, stream: str) -> bool:
    """Whether every number of *stream* up to the newest is there, in each life."""
    lives = {key.life for key in server.records if key.stream == stream}
    return all(
        len(from_numbers(k.seq for k in server.records if (k.stream, k.life) == (stream, life))) == 1
        and min(k.seq for k in server.records if (k.stream, k.life) == (stream, life)) == 1
        for life in lives
    )


def waiting(rig: rigs.Rig) -> dict[str, int]:
    streams = rig.status()["streams"]
    assert isinstance(streams, list)
    return {row["stream"]: row["waiting"] for row in streams if row["current"]}


async def test_readings_arrive_are_receipted_and_the_stop_is_told(rig: rigs.Rig, broker: Mosquitto) -> None:
    async with rigs.server(broker) as server:
        with rigs.agent(rig) as process:
            await server.until(lambda: len(server.records) >= 10, "ten records")
            assert await rigs.stop(process) == 0
        await server.until(lambda: bool(server.wills), "the farewell")
    assert [will.reason for will in server.wills] == ["stop"]
    assert server.wills[0].epoch == server.births[-1].epoch
    assert {state.stream for state in server.births[0].streams} == {JOURNAL, "cpu", "memory"}
    assert not server.conflicts
    kinds = server.event_kinds()
    assert kinds[0] == "agent.start"
    assert kinds[-1] == "agent.stop"
    for record in server.decoded("cpu"):
        assert isinstance(record, Batch)
        assert record.fields == ("cpu_pct", "load_1m")
        assert all(value is not None for row in record.rows for value in row)
    journal = server.decoded(JOURNAL)
    assert isinstance(journal[0], Events)
    assert journal[0].prev == GENESIS
    assert waiting(rig) == {JOURNAL: 0, "cpu": 0, "memory": 0}


async def test_killed_again_and_again_it_gives_no_number_twice_and_leaves_no_hole(
    rig: rigs.Rig, broker: Mosquitto
) -> None:
    async with rigs.server(broker) as server:
        for run in range(4):
            with rigs.agent(rig) as process:
                more = len(server.records) + 6
                await server.until(lambda more=more: len(server.records) >= more, f"records of run {run}")  # type: ignore[misc]
                process.kill()
        with rigs.agent(rig) as process:
            births = len(server.births)
            await server.until(lambda: len(server.births) > births, "the last birth")
            assert await rigs.stop(process) == 0
    assert not server.conflicts
    assert complete(server, "cpu")
    assert complete(server, "memory")
    assert complete(server, JOURNAL)
    starts = [
        event.data["clean"]
        for record in server.decoded(JOURNAL)
        if isinstance(record, Events)
        for event in record.events
        if event.kind == "agent.start"
    ]
    assert starts == [True, False, False, False, False]


@pytest.fixture
def own(broker: Mosquitto) -> Pair:
    """The device's pair, with a new one beside it: other files, and the same certificate to TLS."""
    credentials = broker.device(rigs.DEVICE)
    own = Pair(credentials.certificate, credentials.key)
    for file, beside in zip(own, own.next, strict=True):
        beside.write_bytes(file.read_bytes() + b"\n")
    return own


def told(pair: Pair) -> list[bytes]:
    return [file.read_bytes() for file in pair]


async def test_a_new_certificate_that_connected_takes_the_old_ones_place(rig: rigs.Rig, own: Pair) -> None:
    new = told(own.next)
    with rigs.agent(rig) as process:
        await rigs.poll(lambda: files.pairs(own) == [own], "nothing beside it any more")
        assert told(own) == new
        assert await rigs.stop(process) == 0


async def test_who_holds_the_identity_does_not_keep_the_agent_from_hearing(
    rig: rigs.Rig, broker: Mosquitto, own: Pair
) -> None:
    before = told(own)
    async with rigs.server(broker) as server:
        with files.changing(own), rigs.agent(rig) as process:
            await server.until(lambda: len(server.records) >= 10, "ten records")
            assert await rigs.stop(process) == 0
    assert waiting(rig) == {JOURNAL: 0, "cpu": 0, "memory": 0}
    assert told(own) == before


async def test_a_pair_that_came_after_the_one_that_connected_does_not_take_its_place(
    rig: rigs.Rig, broker: Mosquitto, own: Pair
) -> None:
    before = told(own)
    async with rigs.server(broker) as server:
        with rigs.agent(rig) as process:
            with files.changing(own):
                await server.until(lambda: len(server.births) > 0, "a birth")
                for beside in own.next:
                    beside.write_bytes(b"never tried")
            await rigs.poll(
                lambda: b"certificate" in (rig.directory / "log").read_bytes(), "a word about the new one"
            )
            assert told(own) == before
            assert await rigs.stop(process) == 0


async def test_a_broker_that_forgot_everything_loses_nothing(rig: rigs.Rig, broker: Mosquitto) -> None:
    with rigs.agent(rig) as process:
        async with rigs.server(broker) as server:
            await server.until(lambda: len(server.records) >= 6, "records")
            first = dict(server.records)
        broker.kill()
        broker.wipe()
        broker.start()
        async with rigs.server(broker) as server:
            server.records |= first
            await server.until(lambda: len(server.records) >= len(first) + 8, "records over the new broker")
            assert await rigs.stop(process) == 0
        assert not server.conflicts
        assert complete(server, "cpu")
        assert {"link.down", "link.up"} <= set(server.event_kinds())


async def test_after_a_failed_try_it_waits_for_the_spread_that_the_server_said_last(
    rig: rigs.Rig, broker: Mosquitto
) -> None:
    spread_s = 2.0  # the rig's own back-off ends at 0.5 s
    up = ServerState(1, 1, (), "up", int(1000 * spread_s))
    with rigs.agent(rig) as process:
        async with rigs.server(broker) as server:
            await server.announce(up)
            await server.until(lambda: len(server.records) >= 6, "records")
            await server.announce(ServerState(1, 1, (), "down"))  # a server that goes does not end it
            heard = len(server.records)
            await server.until(lambda: len(server.records) >= heard + 4, "more records")
        log = rig.directory / "log"
        broker.kill()
        await rigs.poll(lambda: b"cannot connect" in log.read_bytes(), "a try fails")
        failed_s = time.monotonic()
        broker.start()
        async with rigs.server(broker) as server:
            await server.until(lambda: bool(server.births), "it is back")
            assert time.monotonic() - failed_s > spread_s / 2
            assert await rigs.stop(process) == 0


async def test_without_receipts_records_are_repeated_and_kept(rig: rigs.Rig, broker: Mosquitto) -> None:
    async with rigs.server(broker) as server:
        server.receipts = False
        with rigs.agent(rig) as process:
            await server.until(lambda: server.repeated >= 3, "repetitions")
            forged = Receipt(1, "cpu", server.births[0].streams[1].life, 1_000, (), (), 1)
            await server.say(Down.RECEIPT, forged, Purpose.RECEIPT, b"\0" * 32)  # not the device's key
            await server.say(Down.RECEIPT, forged, Purpose.TIME, rigs.RECEIPT_SECRET)  # not for this purpose
            seen = server.repeated
            await server.until(lambda: server.repeated >= seen + 3, "repetitions after forged receipts")
            assert await rigs.stop(process) == 0
        assert waiting(rig)["cpu"] >= 1
        server.receipts = True
        births = len(server.births)
        with rigs.agent(rig) as process:
            await server.until(lambda: len(server.births) > births, "the next birth")
            for stream in ("cpu", "memory", JOURNAL):
                await server.receipt(stream, server.births[0].streams[0].life)
            await server.until(lambda: complete(server, "cpu"), "all of cpu")
            assert await rigs.stop(process) == 0
    assert waiting(rig)["cpu"] == 0
    assert not server.conflicts


async def test_a_restored_server_is_offered_again_what_it_had_receipted(rig: rigs.Rig, broker: Mosquitto) -> None:
    async with rigs.server(broker) as server:
        with rigs.agent(rig) as process:
            await server.until(lambda: len(server.records) >= 10, "records")
            had = dict(server.records)
            server.records.clear()
            server.store_epoch = 2
            await server.until(lambda: had.keys() <= server.records.keys(), "all that the old store had")
            await server.until(lambda: server.births[-1].store_epoch == 2, "a birth that knows the new store")
            assert await rigs.stop(process) == 0
    assert all(server.records[key] == payload for key, payload in had.items())


async def test_a_conflict_makes_new_batches_take_a_new_life(rig: rigs.Rig, broker: Mosquitto) -> None:
    async with rigs.server(broker) as server:
        with rigs.agent(rig) as process:
            await server.until(lambda: len(server.records) >= 6, "records")
            life = next(key.life for key in server.records if key.stream == "cpu")
            await server.receipt("cpu", life, conflict=((1, 1),))
            await server.until(
                lambda: {key.life for key in server.records if key.stream == "cpu"} > {life}, "a new life of cpu"
            )
            assert {key.life for key in server.records if key.stream == "memory"} == {life}
            assert await rigs.stop(process) == 0
    assert complete(server, "cpu")


async def test_a_second_agent_on_the_same_state_is_refused(rig: rigs.Rig, broker: Mosquitto) -> None:
    async with rigs.server(broker) as server:
        with rigs.agent(rig) as process:
            await server.until(lambda: bool(server.births), "a birth")
            second = await asyncio.create_subprocess_exec(*rig.command("run"), stderr=subprocess.PIPE)
            _, said = await second.communicate()
            assert second.returncode == 4
            assert b"another agent uses" in said
            assert await rigs.stop(process) == 0


async def test_a_vanished_agent_is_told_by_its_will_with_the_epoch_of_its_birth(
    rig: rigs.Rig, broker: Mosquitto
) -> None:
    async with rigs.server(broker) as server:
        with rigs.agent(rig) as process:
            await server.until(lambda: bool(server.births), "a birth")
            process.kill()
        began_s = time.monotonic()
        await server.until(lambda: bool(server.wills), "the will", seconds=limits.WILL_DELAY_S + rigs.WAIT_S)
    assert server.wills == [Will(1, server.births[0].epoch, "lost")]
    assert time.monotonic() - began_s > limits.WILL_DELAY_S - 2  # a short cut of the link tells nobody


async def test_an_agent_with_nothing_to_say_repeats_its_birth(tmp_path: Path, broker: Mosquitto) -> None:
    rig = rigs.lay_out(tmp_path / "device", broker, profile=rigs.fast_profile(tmp_path / "device", 3600))
    rig.config.write_text(rig.config.read_text().replace("keep_alive_s = 5", "keep_alive_s = 1"))
    async with rigs.server(broker) as server:
        with rigs.agent(rig) as process:
            await server.until(lambda: len(server.births) >= 3, "repeated births")
            assert await rigs.stop(process) == 0
    assert len({birth.epoch for birth in server.births}) == 1


@pytest.mark.server("faketime")
@pytest.mark.parametrize(
    ("offset", "ntp"),
    [
        ("-50y", "no"),  # a dead battery
        ("+10y", "no"),
        ("+10y", "yes"),  # believed, until the handshake fails on dates alone
        ("-50y", "yes"),
    ],
)
async def test_a_clock_that_is_years_off_locks_nobody_out_and_is_mended(
    tmp_path: Path, broker: Mosquitto, offset: str, ntp: str
) -> None:
    rig = rigs.lay_out(
        tmp_path / "device",
        broker,
        profile=rigs.fast_profile(tmp_path / "device"),
        extra=f'[system]\nntp = "{ntp}"\n',
    )
    async with rigs.server(broker) as server:
        faked = ("env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "faketime", "-f", offset)
        with rigs.agent(rig, *faked):

            def mended() -> bool:
                records = server.decoded("cpu")
                return bool(records) and records[-1].clock.src == "server"

            await server.until(mended, "a batch by the server's clock")
    record = server.decoded("cpu")[-1]
    assert abs(record.t0 - time.time() * 1000) < 60_000
    assert abs(record.clock.off_ms) > 3_000 * DAY_MS
    assert "clock.source" in server.event_kinds()


async def test_an_instrument_that_hangs_stops_nobody_else(tmp_path: Path, broker: Mosquitto) -> None:
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            asked.set()
        writer.close()

    far = await asyncio.start_unix_server(silent, tmp_path / "far")
    rig = rigs.lay_out(tmp_path / "device", broker, profile=str(tmp_path / "mixed.toml"))
    (tmp_path / "mixed.toml").write_text(
        'device_class = "host"\n[[wires]]\nstream = "cpu"\ndriver = "host.cpu"\nevery_s = 0.2\n'
        '[[wires]]\nstream = "memory"\ndriver = "ascii_query"\nevery_s = 0.2\ndeadline_s = 0.5\n'
        f'options = {{ at = "unix:{tmp_path / "far"}" }}\n'
    )
    async with rigs.server(broker) as server:
        with rigs.agent(rig) as process:
            await server.until(lambda: len(server.decoded("cpu")) >= 5, "readings of the other instrument")
            await server.until(lambda: bool(server.decoded("memory")), "rows of what hangs")
            assert await rigs.stop(process) == 0
    assert asked.is_set()
    far.close()
    await far.wait_closed()
    rows = [row for record in server.decoded("memory") if isinstance(record, Batch) for row in record.rows]
    assert rows
    assert all(value is None for row in rows for value in row)
    assert "driver.fault" in server.event_kinds()


async def test_a_damaged_spool_is_set_aside_and_a_new_life_begins(rig: rigs.Rig, broker: Mosquitto) -> None:
    async with rigs.server(broker) as server:
        with rigs.agent(rig) as process:
            await server.until(lambda: len(server.records) >= 6, "records")
            assert await rigs.stop(process) == 0
        old_lives = {key.life for key in server.records}
        (rig.state_dir / "spool.db").write_bytes(b"no spool" * 1_000)
        with rigs.agent(rig) as process:
            await server.until(lambda: {key.life for key in server.records} > old_lives, "a new life")
            await server.until(lambda: "spool.new" in server.event_kinds(), "the event")
            assert await rigs.stop(process) == 0
    assert [path.read_bytes()[:8] for path in rig.state_dir.glob("spool.db.damaged-*")] == [b"no spool"]


@pytest.mark.root("mounts a small file system")
async def test_while_the_disk_is_full_sampling_goes_on_and_nothing_is_lost(rig: rigs.Rig, broker: Mosquitto) -> None:
    with mounted(rig.state_dir, 512 * 1024) as disk:
        async with rigs.server(broker) as server:
            with rigs.agent(rig) as process:
                await server.until(lambda: len(server.records) >= 6, "records")
                disk.fill()
                log = rig.directory / "log"
                await rigs.poll(lambda: b"spool takes nothing" in log.read_bytes(), "the agent notices")
                full_ms = time.time() * 1000
                await rigs.poll(lambda: time.time() * 1000 > full_ms + 2_000, "two seconds of a full disk")
                disk.free()
                await server.until(lambda: "spool.ok" in server.event_kinds(), "the disk takes batches again")
                assert await rigs.stop(process) == 0
    assert {"spool.full", "spool.ok"} <= set(server.event_kinds())
    assert complete(server, "cpu")
    times = [r.t0 + dt for r in server.decoded("cpu") if isinstance(r, Batch) for dt in r.dt]
    during = [t for t in times if full_ms <= t < full_ms + 2_000]
    assert len(during) >= 8  # every 200 ms, the disk full or not


def test_check_reads_each_driver_once(tmp_path: Path) -> None:
    rig = rigs.lay_out(tmp_path / "device", None)
    done = subprocess.run(rig.command("check", "--json"), capture_output=True, check=False)
    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert told["ok"]
    assert {row["stream"] for row in told["readings"]} == {"cpu", "memory", "storage", "network", "temperature"}


def test_a_wrong_configuration_is_told_whole(tmp_path: Path) -> None:
    rig = rigs.lay_out(tmp_path / "device", None, top="colour = 1")
    (tmp_path / "device" / "ca").unlink()
    done = subprocess.run(rig.command("run"), capture_output=True, check=False)
    assert done.returncode == 3
    assert done.stderr.decode().splitlines() == ["edge-agent: colour: unknown"]


def test_status_without_an_agent_says_so(tmp_path: Path) -> None:
    rig = rigs.lay_out(tmp_path / "device", None)
    done = subprocess.run(rig.command("status"), capture_output=True, check=False)
    assert done.returncode == 1
    assert messages.MESSAGE_BYTES_MAX > len(done.stderr) > 0
