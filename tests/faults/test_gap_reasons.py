"""Each reason of a gap has a fault that produces just it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker_config.ids import device_id
from broker_config.messages import StreamState
from broker_config.telemetry import key_text
from tests.faults.api import Json
from tests.faults.carry_out import TRIMS_EARLY, Faults, pause
from tests.faults.hostile import LIFE, Hostile
from tests.faults.proxy import Mode
from tests.faults.rig import DEVICE, Rig, RigSettings
from tests.faults.witness import CARRIERS

pytestmark = pytest.mark.server("mosquitto")

HOSTILE = device_id("hostile")


@contextmanager
def rig_of(directory: Path, settings: RigSettings | None = None) -> Iterator[Rig]:
    with Rig(directory, settings) as rig:
        rig.run()
        yield rig


def gaps(rig: Rig, device: str = DEVICE) -> list[Json]:
    return [gap for gap in rig.api.pages("/v1/gaps", "gaps", device=device) if not gap["open"]]


def reasons(rig: Rig) -> list[tuple[object, object]]:
    """(stream, reason) of each gap, once the server has everything."""
    rig.wait(rig.drained, "drained", rig.agent, rig.server)
    return sorted((str(gap["stream"]), str(gap["reason"])) for gap in gaps(rig))


def each(reason: str) -> list[tuple[object, object]]:
    """One gap a stream."""
    return [(stream, reason) for stream in sorted(CARRIERS)]


def test_an_agent_that_was_stopped_was_off(tmp_path: Path) -> None:
    with rig_of(tmp_path) as rig:
        Faults(rig).stop_agent()
        pause(rig.settings.silence_s)
        rig.agent.start()
        rig.settle()
        assert reasons(rig) == each("off")


def test_while_an_agent_is_stopped_its_streams_are_off_and_openly_so(tmp_path: Path) -> None:
    with rig_of(tmp_path) as rig:
        Faults(rig).stop_agent()

        def opened() -> list[tuple[object, object]]:
            found = rig.api.pages("/v1/gaps", "gaps", device=DEVICE)
            return sorted((str(gap["stream"]), str(gap["reason"])) for gap in found if gap["open"])

        rig.wait(lambda: bool(opened()), "the silence is noticed", rig.server)
        rig.wait(lambda: opened() == each("off"), "of every stream", rig.server)


def test_an_agent_that_died_was_rebooting(tmp_path: Path) -> None:
    with rig_of(tmp_path) as rig:
        Faults(rig).kill_agent()
        pause(rig.settings.silence_s)
        rig.agent.start()
        rig.settle()
        assert reasons(rig) == each("rebooting")


def test_a_frozen_agent_cannot_say_why(tmp_path: Path) -> None:
    with rig_of(tmp_path) as rig:
        rig.agent.freeze()
        pause(2 * rig.settings.silence_s)
        rig.agent.thaw()
        rig.settle()
        assert reasons(rig) == each("unexplained")


def test_a_spool_that_overflowed_evicted(tmp_path: Path) -> None:
    """No way to the broker until the spool has dropped what nobody had receipted; its tombstones tell."""
    with rig_of(tmp_path, TRIMS_EARLY) as rig:
        rig.background.call(switched(rig, Mode.REFUSED))
        rig.background.call(cut(rig))
        rig.wait(lambda: rig.agent.log().count("batches evicted") > 40, "the spool evicts", rig.agent)
        rig.background.call(switched(rig, Mode.OPEN))
        rig.settle()
        found = reasons(rig)
        assert {reason for _, reason in found} == {"evicted"}
        events = [str(event["kind"]) for event in rig.api.pages(f"/v1/devices/{DEVICE}/events", "events")]
        assert "spool.evicted" in events


def test_what_the_device_still_holds_is_waited_for(tmp_path: Path) -> None:
    """The birth tells of a backlog before a slow link has brought it; once it has, there is no gap."""
    with rig_of(tmp_path) as rig:
        rig.server.kill()
        emitted = len(rig.emitted())
        rig.wait(lambda: len(rig.emitted()) > emitted + 150, "a backlog", rig.agent)
        rig.background.call(switched(rig, Mode.REFUSED))
        rig.background.call(cut(rig))
        rig.start_server()
        rig.background.call(switched(rig, Mode.SLOW))
        rig.wait(lambda: any(gap["reason"] == "waiting" for gap in every(rig)), "the backlog is told of", rig.agent)
        assert {gap["reason"] for gap in every(rig)} == {"waiting"}
        rig.background.call(switched(rig, Mode.OPEN))
        rig.settle()
        assert reasons(rig) == []


def every(rig: Rig) -> list[Json]:
    return [gap for gap in rig.api.pages("/v1/gaps", "gaps", device=DEVICE) if gap["first_seq"] is not None]


async def switched(rig: Rig, mode: Mode) -> None:
    rig.agent_link.switch(mode)


async def cut(rig: Rig) -> None:
    rig.agent_link.reset()


def test_what_the_store_lost_and_the_device_trimmed_is_lost(tmp_path: Path) -> None:
    """A backup that is older than what the device still holds."""
    with rig_of(tmp_path, TRIMS_EARLY) as rig:
        backup = tmp_path / "backup.db"
        rig.server_command("backup", str(backup))
        held_until = rig.tap.newest_receipted("cpu")
        rig.wait(
            lambda: rig.tap.newest_receipted("cpu") > held_until + 200, "more than the spool can hold", rig.agent
        )
        rig.server.kill()
        pause(rig.settings.lease_ttl_s)
        rig.server_command("restore", str(backup))
        rig.start_server()
        rig.settle()
        found = reasons(rig)
        # what it measures while the server is away may be more than so small a spool holds
        assert {"lost"} <= {reason for _, reason in found} <= {"lost", "evicted"}
        assert {stream for stream, reason in found if reason == "lost"} >= set(CARRIERS)


def test_poison_whose_key_can_be_read_is_a_gap_that_quarantine_explains(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.start_server()
        with Hostile(rig, HOSTILE) as device:
            device.be_born([StreamState("cpu", LIFE, 1, 3)])
            device.say_good(1)
            device.say(b"poison", key=key_text("cpu", LIFE, 2))
            device.say_good(3)
            assert device.receipted(3).missing == ()
            found = [(gap["reason"], gap["first_seq"], gap["last_seq"]) for gap in gaps(rig, HOSTILE)]
            assert found == [("quarantined", 2, 2)]
