"""A lease holds off what the class says, for as long as somebody is seen to hold it, and never for ever."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from broker_config import device_classes
from broker_config.device_classes import Change
from edge_agent import config, leases
from edge_agent.config import ConfigError
from edge_agent.journal import Data, Kind
from edge_agent.lease_watch import LeaseWatch
from edge_agent.leases import ByFile, ByReading, Guard, LeaseTable, Sighting, Written
from tests.edge_agent import rig as rigs

DAY_MS = 86_400_000
NOW_MS = 1_767_225_600_000
RECORDING = Guard("recording", frozenset(Change), ByReading("recorder", 0, None, 60_000))
CALL = Guard("on_call", frozenset({Change.CONFIG}), ByFile("/nowhere", 1_000))


@pytest.mark.parametrize(
    ("equals", "value", "held"),
    [
        (None, 1.0, True),
        (None, 0.0, False),
        (None, -2.0, True),
        (4.0, 4.0, True),
        (4.0, 3.0, False),
        (0.0, 0.0, True),
    ],
)
def test_a_reading_says_whether_it_is_held(equals: float | None, value: float, held: bool) -> None:
    source = ByReading("signal", 1, equals, 60_000)
    seen = leases.read(source, [9.0, value], Sighting("signal", 1), 5_000)
    assert seen == (Sighting("signal", 65_000) if held else None)


def test_a_reading_that_is_missing_changes_nothing_and_counts_until_its_end() -> None:
    seen = leases.read(ByReading("recorder", 0, None, 60_000), [1.0], None, 0)
    assert leases.read(ByReading("recorder", 0, None, 60_000), [None], seen, 50_000) == seen
    assert seen is not None
    assert leases.held({"recording": seen}, 59_999) == {"recording": "recorder"}
    assert leases.held({"recording": seen}, 60_000) == {}


@pytest.mark.parametrize(
    ("age_ms", "until_ms"),
    [(0, 1_500), (400, 1_100), (1_000, 500), (DAY_MS, 500 + 1_000 - DAY_MS), (-5_000, 1_500), (None, 1_500)],
)
def test_a_file_counts_from_when_it_was_written(age_ms: int | None, until_ms: int) -> None:
    assert leases.written(ByFile("f", 1_000), Written((1, 1), "unit 7", age_ms), 500) == Sighting("unit 7", until_ms)


def test_what_nobody_has_looked_at_yet_is_held_for_a_while() -> None:
    found = leases.unseen((RECORDING, CALL), 0)
    assert leases.held(found, 59_999) == {"recording": leases.UNSEEN}
    assert leases.held(found, 60_000) == {}


def test_only_what_the_class_says_is_held_off_and_the_first_lease_is_named() -> None:
    both = {"on_call": "unit 7", "recording": "recorder"}
    assert leases.waits_for((RECORDING, CALL), both, Change.CONFIG) == "recording"
    assert leases.waits_for((RECORDING, CALL), {"on_call": "unit 7"}, Change.CONFIG) == "on_call"
    assert leases.waits_for((RECORDING, CALL), {"on_call": "unit 7"}, Change.COMMAND) == ""
    assert leases.waits_for((RECORDING, CALL), {}, Change.CONFIG) == ""


# The watch ------------------------------------------------------------------------------------------------------


@dataclass
class Board:
    """A journal and two clocks. ``now_ms`` None: nobody vouches for the time."""

    mono_ms: int = 0
    now_ms: int | None = NOW_MS
    noted: list[tuple[Kind, Data]] = field(default_factory=list)

    def note(self, kind: Kind, data: Data) -> None:
        self.noted.append((kind, data))

    def watch(self, *guards: Guard) -> LeaseWatch:
        return LeaseWatch(guards, self, mono_ms=lambda: self.mono_ms, now_ms=lambda: self.now_ms)

    def passes(self, ms: int) -> None:
        self.mono_ms += ms
        self.now_ms = None if self.now_ms is None else self.now_ms + ms


def call(path: Path, text: str = "unit 7\n", at_ms: int = NOW_MS) -> Guard:
    path.write_text(text)
    os.utime(path, ns=(at_ms * 1_000_000, at_ms * 1_000_000))
    return CALL._replace(source=ByFile(str(path), 60_000))


def test_a_reading_holds_it_at_once_and_lets_go_at_once() -> None:
    board = Board()
    watch = board.watch(RECORDING)
    assert watch.waits_for(Change.FIRMWARE) == "recording"  # not seen yet
    watch.row("power", [1.0])
    watch.row("recorder", [0.0])
    assert watch.waits_for(Change.FIRMWARE) == ""
    watch.row("recorder", [1.0])
    assert watch.waits_for(Change.FIRMWARE) == "recording"
    watch.row("recorder", [0.0])
    watch.turn()
    assert watch.waits_for(Change.FIRMWARE) == ""
    assert board.noted == [
        (Kind.LEASE_HELD, {"lease": "recording", "owner": "recorder"}),
        (Kind.LEASE_RELEASED, {"lease": "recording", "why": "ended"}),
    ]


def test_an_instrument_that_fell_silent_lets_go_in_the_end() -> None:
    board = Board()
    watch = board.watch(RECORDING)
    watch.row("recorder", [1.0])
    watch.turn()
    board.passes(60_000)
    watch.turn()
    assert watch.waits_for(Change.CONFIG) == ""
    assert board.noted[1:] == [(Kind.LEASE_RELEASED, {"lease": "recording", "why": "expired"})]


def test_a_file_holds_it_until_it_is_removed(tmp_path: Path) -> None:
    board = Board()
    watch = board.watch(call(tmp_path / "on_call"))
    assert watch.waits_for(Change.CONFIG) == "on_call"
    assert watch.waits_for(Change.COMMAND) == ""
    (tmp_path / "on_call").unlink()
    assert watch.waits_for(Change.CONFIG) == ""
    assert board.noted == [
        (Kind.LEASE_HELD, {"lease": "on_call", "owner": "unit 7"}),
        (Kind.LEASE_RELEASED, {"lease": "on_call", "why": "ended"}),
    ]


def test_pain_37_a_stale_file_is_no_lease_and_one_that_is_written_again_is_one_on(tmp_path: Path) -> None:
    board = Board()
    path = tmp_path / "on_call"
    watch = board.watch(call(path))
    board.passes(59_999)
    assert watch.waits_for(Change.CONFIG) == "on_call"
    call(path, at_ms=NOW_MS + 59_999)
    board.passes(1)
    assert watch.waits_for(Change.CONFIG) == "on_call"
    board.passes(60_000)
    assert watch.waits_for(Change.CONFIG) == ""
    assert [data.get("why") for _, data in board.noted] == [None, "expired"]
    assert Board().watch(call(path, at_ms=NOW_MS - DAY_MS)).waits_for(Change.CONFIG) == ""  # nor after a restart


@pytest.mark.parametrize("at_ms", [0, NOW_MS + DAY_MS])
def test_a_file_of_an_unknown_age_holds_it_once_for_its_time(tmp_path: Path, at_ms: int) -> None:
    board = Board()
    watch = board.watch(call(tmp_path / "on_call", at_ms=at_ms))
    assert watch.waits_for(Change.CONFIG) == "on_call"
    board.passes(60_000)
    assert watch.waits_for(Change.CONFIG) == ""


def test_a_clock_that_is_moved_moves_no_lease(tmp_path: Path) -> None:
    board = Board(now_ms=None)
    watch = board.watch(call(tmp_path / "on_call"))
    assert watch.waits_for(Change.CONFIG) == "on_call"
    board.now_ms = NOW_MS + 10 * DAY_MS
    assert watch.waits_for(Change.CONFIG) == "on_call"
    board.now_ms = None
    board.passes(60_000)
    assert watch.waits_for(Change.CONFIG) == ""


@pytest.mark.parametrize("text", ["", "x" * 100_000, "a\0\x1b[31m\n", "\udcff"])
def test_a_file_with_any_text_is_a_lease(tmp_path: Path, text: str) -> None:
    path = tmp_path / "on_call"
    guard = call(path, "")
    path.write_bytes(text.encode(errors="surrogateescape"))
    board = Board()
    assert board.watch(guard).waits_for(Change.CONFIG) == "on_call"
    owner = board.noted[0][1]["owner"]
    assert isinstance(owner, str)
    assert len(owner) <= leases.OWNER_CHARS_MAX
    assert owner.isprintable()


def test_a_directory_in_place_of_a_file_holds_it_only_for_its_time(tmp_path: Path) -> None:
    (tmp_path / "on_call").mkdir()
    board = Board()
    watch = board.watch(CALL._replace(source=ByFile(str(tmp_path / "on_call"), 60_000)))
    board.now_ms = None
    watch.turn()
    board.passes(60_000)
    assert watch.waits_for(Change.CONFIG) == ""


# The profile ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ('[leases.siesta]\nfile = "f"\n', "leases.siesta: unknown; body_camera has recording, on_call"),
        ('[leases.on_call]\nstream = "recorder"\nfield = "nothing"\n', "recorder.nothing is not wired"),
        ('[leases.on_call]\nstream = "recorder"\n', "expected either stream and field, or file"),
        ('[leases.on_call]\nfile = "f"\nstream = "cpu"\nfield = "cpu_pct"\n', "expected either stream and field"),
        ("[leases.on_call]\n", "expected either stream and field, or file"),
        ('[leases.on_call]\nfile = "f"\nttl_s = 0\n', "leases.on_call.ttl_s"),
        ('[leases.on_call]\nfile = "{nowhere}/f"\n', "no address 'nowhere'"),
        ("[leases]\non_call = 1\n", "expected a table"),
    ],
)
def test_a_lease_that_is_wired_wrongly_is_a_fault(tmp_path: Path, table: str, fault: str) -> None:
    path = tmp_path / "camera.toml"
    path.write_text(f'device_class = "body_camera"\n[[wires]]\nstream = "cpu"\ndriver = "host.cpu"\n{table}')
    rig = rigs.lay_out(tmp_path, None, profile=str(path))
    rig.config.write_text(rig.config.read_text().replace('device_class = "host"', 'device_class = "body_camera"'))
    with pytest.raises(ConfigError) as found:
        config.load(rig.config)
    assert any(fault in each for each in found.value.faults), found.value.faults


@pytest.mark.parametrize("name", device_classes.names())
def test_a_shipped_profile_sees_every_lease_and_applies_every_setting_of_its_class(tmp_path: Path, name: str) -> None:
    rig = rigs.lay_out(tmp_path, None, profile=name)
    rig.config.write_text(rig.config.read_text().replace('device_class = "host"', f'device_class = "{name}"'))
    settings = config.load(rig.config)
    assert [guard.name for guard in settings.profile.guards] == list(settings.device_class.leases)
    # whether there is a microcontroller that can be updated, and where, only the board's own profile knows
    assert list(settings.profile.handlers) == [name for name in settings.device_class.config if name != "mcu_release"]


def test_a_table_needs_one_source() -> None:
    with pytest.raises(ValueError, match="either"):
        LeaseTable(stream="recorder", field="recording", file="f")
