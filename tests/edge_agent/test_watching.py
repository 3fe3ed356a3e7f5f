"""From a folder to the outbox and out of it again, over real files and the real child; killed at every step."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker_config import manifest, signing
from broker_config.ids import DeviceId
from broker_config.manifest import GENESIS, Manifest
from broker_config.transfer import Receipted, StorageClass
from edge_agent import config
from edge_agent.adapters.sqlite_outbox import SqliteOutbox
from edge_agent.adapters.system import system
from edge_agent.config import Settings
from edge_agent.folders import ABNORMAL
from edge_agent.journal import Data, Kind
from edge_agent.keeper import Keeper
from edge_agent.lost import Lost
from edge_agent.outbox import HOUR_MS, Kept
from edge_agent.releasing import Releaser
from edge_agent.watching import Watcher, chunk_bytes
from fleet_server.access import ca
from tests.edge_agent import rig as rigs
from tests.edge_agent.upload_rig import put

CLOSED = "[uploads]\nreserve_bytes = 0\n[uploads.folders.recordings]\n"


class _Journal(Keeper):
    """The real one, whose events a test can read."""

    def __init__(self, settings: Settings) -> None:
        self.noted: list[tuple[Kind, Data]] = []
        board = system(settings.boot_id_file, ntp="yes", mono_add_ms=0)
        super().__init__(settings, board, (), lambda _keys: None)
        self.start()
        self.look(board.facts())

    def note(self, kind: Kind, data: Data, *rest: object) -> None:
        self.noted.append((kind, data))
        super().note(kind, data)

    def kinds(self) -> list[str]:
        return [kind.value for kind, _ in self.noted if kind.value.startswith(("file", "recording"))]


def folder_of(settings: Settings) -> Path:
    assert settings.uploads is not None
    return settings.uploads.paths["recordings"]


@dataclass
class Device:
    """One run of what looks after files."""

    settings: Settings
    keeper: _Journal = field(init=False)
    outbox: SqliteOutbox = field(init=False)
    watcher: Watcher = field(init=False)
    releaser: Releaser = field(init=False)

    def __post_init__(self) -> None:
        board = system(self.settings.boot_id_file, ntp="yes", mono_add_ms=0)
        self.keeper = _Journal(self.settings)
        self.outbox = SqliteOutbox(self.settings.state_dir / "uploads.db")
        self.watcher = Watcher(self.settings, board, self.keeper, self.outbox)
        self.releaser = Releaser(self.settings, board, self.keeper, self.outbox, self.watcher)
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def folder(self) -> Path:
        return folder_of(self.settings)

    async def look(self) -> None:
        while await self.watcher.turn(0):
            pass
        self.watcher.tell()

    def manifests(self) -> list[Manifest]:
        rows = self.outbox._rows("SELECT envelope FROM upload ORDER BY rowid")
        return [manifest.decode(signing.decode_envelope(bytes(row[0]))) for row in rows]  # type: ignore[call-overload]

    def receipt(self, storage_class: StorageClass = StorageClass.LOGGED, *, hours_ago: float = 0) -> None:
        at_ms = time.time_ns() // 1_000_000 - int(hours_ago * HOUR_MS)
        rows = self.outbox._rows("SELECT upload, sha256, size FROM upload")
        told = [Receipted(str(row[0]), str(row[1]), int(str(row[2])), storage_class) for row in rows]
        self.outbox.receipted(told, at_ms=at_ms, counter=1, envelope=b"proof")

    def close(self) -> None:
        self.outbox.close()
        self.keeper.close()


def lay_out(directory: Path, uploads: str = CLOSED) -> Settings:
    """A camera with a real key."""
    rig = rigs.lay_out(directory, None, profile=rigs.fast_profile(directory), extra=uploads)
    text = rig.config.read_text().replace('device_class = "host"', 'device_class = "body_camera"')
    rig.config.write_text(text)
    (directory / "quick.toml").write_text('device_class = "body_camera"\n')
    now = datetime.now(UTC)
    issued = ca.issue_device(ca.new_ca("test", now=now), DeviceId("car-7"), now=now)
    (directory / "crt").write_bytes(issued.certificate_pem)
    (directory / "key").write_bytes(issued.key_pem)
    settings = config.load(rig.config)
    settings.state_dir.mkdir(exist_ok=True)
    return settings


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    found = Device(lay_out(tmp_path))
    yield found
    found.close()


async def test_a_recording_is_a_chain_with_a_last_one(device: Device) -> None:
    await device.look()
    put(device.folder, "rec-1.open", b'{"trigger": "siren"}')
    for n in (1, 2, 3):
        put(device.folder, f"rec-1_{n:05d}.mp4", os.urandom(40_000))
        await device.look()
    put(device.folder, "rec-1.close", b'{"reason": "switched off"}')
    await device.look()
    told = device.manifests()
    segments = [each.segment for each in told]
    assert [(s.number, s.last, s.reason, s.trigger, s.gap_ms) for s in segments if s] == [
        (1, False, "", "siren", 0),
        (2, False, "", "siren", 0),
        (3, True, "switched off", "siren", 0),
    ]
    digests = [manifest.digest(manifest.encode(each)) for each in told]
    assert [s.prev for s in segments if s] == [GENESIS, *digests[:2]]
    assert all(each.begin.mono <= each.end.mono for each in told)
    assert sorted(device.keeper.kinds()) == [*["file.sealed"] * 3, "recording.closed", "recording.opened"]
    closed = next(data for kind, data in device.keeper.noted if kind is Kind.RECORDING_CLOSED)
    assert closed["segments"] == 3
    assert sorted(each.name for each in device.folder.iterdir()) == [f"rec-1_{n:05d}.mp4" for n in (1, 2, 3)]


async def test_a_recorder_that_died_is_told_and_its_last_segment_is_kept(tmp_path: Path) -> None:
    device = Device(lay_out(tmp_path, CLOSED.replace("reserve", "abnormal_s = 0.3\nreserve")))
    put(device.folder, "rec-1_00001.mp4", b"x" * 100)
    await device.look()
    assert device.manifests() == []
    deadline = time.monotonic() + 10
    while not device.manifests() and time.monotonic() < deadline:
        await device.look()
    (told,) = device.manifests()
    assert told.segment is not None
    assert (told.segment.last, told.segment.reason) == (False, ABNORMAL)
    device.close()


async def test_what_is_no_plain_file_is_never_followed(device: Device, tmp_path: Path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"secret")
    (device.folder / "link.mp4").symlink_to(secret)
    (device.folder / "folder.mp4").mkdir()
    os.mkfifo(device.folder / "pipe.mp4")
    put(device.folder, "empty.mp4", b"")
    put(device.folder, "notes.txt", b"text")
    put(device.folder, "good.mp4", b"video")
    await device.look()
    await device.look()
    assert [each.name for each in device.manifests()] == ["good.mp4"]
    assert [data["name"] for kind, data in device.keeper.noted if kind is Kind.FILE_LEFT] == [
        "empty.mp4",
        "notes.txt",
    ]


async def test_a_file_is_sealed_once_whatever_the_number_of_runs(device: Device) -> None:
    put(device.folder, "a.mp4", b"video")
    await device.look()
    await device.look()
    device.close()
    again = Device(device.settings)
    await again.look()
    assert len(again.manifests()) == 1
    device.outbox, device.keeper = again.outbox, again.keeper


async def test_a_receipted_file_goes_after_its_time_and_leaves_a_word(device: Device) -> None:
    put(device.folder, "a.mp4", b"video")
    await device.look()
    device.releaser.turn()
    device.receipt(hours_ago=167)
    device.releaser.turn()
    assert (device.folder / "a.mp4").exists()
    device.outbox._db.execute("UPDATE upload SET receipted_ms = receipted_ms - ?", (2 * HOUR_MS,))
    device.releaser.turn()
    assert not (device.folder / "a.mp4").exists()
    assert device.keeper.kinds()[-1] == "file.deleted"
    assert device.outbox.known("recordings") == set()


async def test_a_device_that_is_lost_deletes_nothing_not_even_what_it_had_decided_to(device: Device) -> None:
    lost = Lost(device.settings.state_dir)
    lost.switch(on=True)
    device.releaser._lost = lost
    put(device.folder, "a.mp4", b"video")
    put(device.folder, "b.mp4", b"another")
    await device.look()
    device.receipt(hours_ago=200)
    decided = device.outbox._rows("SELECT upload FROM upload LIMIT 1")[0][0]
    device.outbox.becomes(str(decided), Kept.DELETING)
    device.releaser.turn()
    assert len(list(device.folder.glob("*.mp4"))) == 2
    lost.switch(on=False)
    device.releaser.turn()
    device.releaser.turn()
    assert list(device.folder.glob("*.mp4")) == []


async def test_a_file_that_is_another_one_by_now_is_not_deleted(device: Device) -> None:
    path = put(device.folder, "a.mp4", b"video")
    await device.look()
    device.receipt(hours_ago=200)
    path.write_bytes(b"something that nobody has")
    device.releaser.turn()
    assert path.read_bytes() == b"something that nobody has"
    assert device.keeper.kinds()[-1] == "file.changed"


@pytest.mark.parametrize("storage_class", [None, StorageClass.STORED, StorageClass.LOGGED])
async def test_a_full_disk_frees_only_what_the_log_has_and_says_stop(
    tmp_path: Path, storage_class: StorageClass | None
) -> None:
    quota = CLOSED.replace("reserve_bytes = 0", "reserve_bytes = 1000\nbytes_max = 1000")
    device = Device(lay_out(tmp_path, quota))
    with contextlib.closing(device):
        put(device.folder, "a.mp4", b"x" * 900)
        await device.look()
        if storage_class is not None:
            device.receipt(storage_class)
        device.releaser.turn()
        gone = storage_class is StorageClass.LOGGED
        assert (device.folder / "a.mp4").exists() is not gone
        assert (device.folder / "STOP").exists() is not gone
        assert ("files.full" in device.keeper.kinds()) is not gone
        if not gone:
            device.receipt()
            device.releaser.turn()
            device.releaser.turn()
            assert not (device.folder / "STOP").exists()
            assert device.keeper.kinds()[-2:] == ["file.deleted", "files.ok"]


# Killed at every step -----------------------------------------------------------------------------------------------

CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from edge_agent import config
from edge_agent.adapters import sqlite_outbox
from tests.edge_agent import test_watching as t

step, at = sys.argv[2], int(sys.argv[3])
count = 0
def cut(name):
    global count
    if name == step:
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)

real = sqlite_outbox.SqliteOutbox
t.SqliteOutbox = lambda path: real(path, cut)
device = t.Device(config.load(Path(sys.argv[1])))
asyncio.run(device.look())
device.receipt(hours_ago=200)
device.releaser.turn()
"""


@pytest.mark.parametrize("step", ["commit", "committed"])
@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 6, 7])
async def test_a_death_at_any_step_loses_no_file_and_repeats_no_manifest(tmp_path: Path, step: str, at: int) -> None:
    settings = lay_out(tmp_path)
    folder = folder_of(settings)
    data = {f"rec-1_{n:05d}.mp4": os.urandom(20_000) for n in (1, 2)}
    for name, content in data.items():
        put(folder, name, content)
    put(folder, "rec-1.close", b"{}")
    arguments = [sys.executable, "-c", CHILD, str(settings.config_file), step, str(at)]
    done = await asyncio.to_thread(subprocess.run, arguments, capture_output=True, check=False)
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr.decode()
    device = Device(settings)
    with contextlib.closing(device):
        before = kept(device)
        for name, content in data.items():
            if not (folder / name).exists():  # it was let go, and nothing says that it still waits
                assert before.get(name, ("", Kept.DELETING))[1] == Kept.DELETING
            else:
                assert (folder / name).read_bytes() == content
        await device.look()
        after = kept(device)
        for name, (upload, was) in before.items():
            assert after[name] == (upload, was)  # what may have been offered is never sealed a second time
        assert {name for name in data if (folder / name).exists()} <= set(after)
        device.releaser.turn()
        assert all(was != Kept.DELETING for _, was in kept(device).values())
        assert all((folder / name).exists() for name in kept(device))


def kept(device: Device) -> dict[str, tuple[str, str]]:
    """Name -> upload, and what became of it."""
    found = device.outbox._rows("SELECT name, upload, kept FROM upload")
    return {str(name): (str(upload), str(kept)) for name, upload, kept in found}


async def test_a_child_that_is_killed_seals_nothing_and_the_file_is_sealed_later(device: Device) -> None:
    put(device.folder, "a.mp4", b"video")
    key = device.settings.key_file.read_bytes()
    device.settings.key_file.write_bytes(b"no key")
    await device.look()
    assert device.manifests() == []
    device.settings.key_file.write_bytes(key)
    device.watcher._watches[0].not_before.clear()
    await device.look()
    assert len(device.manifests()) == 1


@pytest.mark.parametrize(
    ("window", "chunk"), [(0, 65_536), (1, 16_384), (65_535, 32_768), (131_072, 131_072), (1 << 24, 131_072)]
)
def test_a_chunk_fits_into_the_window(window: int, chunk: int) -> None:
    assert chunk_bytes(window) == chunk
