"""Files of a real agent over a real broker. What the server got is what counts, and what is on the device's disk."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_config import transfer
from broker_config.limits import KIB
from broker_config.transfer import Code, EvidenceReceipt, Reject, State, StorageClass
from tests.edge_agent import rig as rigs
from tests.edge_agent import upload_rig
from tests.edge_agent.upload_rig import put, taker
from tests.orders import SERVER, STRANGER
from tests.servers import Mosquitto, mosquitto

pytestmark = pytest.mark.server("mosquitto")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path / "broker") as found:
        yield found


@pytest.fixture
def rig(tmp_path: Path, broker: Mosquitto) -> rigs.Rig:
    return upload_rig.lay_out(tmp_path / "device", broker)


def logs(rig: rigs.Rig) -> Path:
    return rig.state_dir / "files" / "logs"


def rows(rig: rigs.Rig) -> dict[str, tuple[str, str | None]]:
    """Name -> what became of it."""
    with sqlite3.connect(rig.state_dir / "uploads.db") as db:
        return {
            name: (kept, known) for name, kept, known in db.execute("SELECT name, kept, storage_class FROM upload")
        }


def is_receipted(rig: rigs.Rig, name: str) -> bool:
    try:
        return rows(rig).get(name, ("", None))[0] == "receipted"
    except sqlite3.OperationalError:  # not made yet
        return False


async def test_a_file_arrives_whole_signed_and_is_receipted(rig: rigs.Rig, broker: Mosquitto) -> None:
    content = {f"board-{n}.log": os.urandom(n * 70 * KIB + 1) for n in range(5)}
    for name, data in content.items():
        put(logs(rig), name, data)
    async with taker(broker) as server:
        with rigs.agent(rig) as process:
            await rigs.poll(lambda: all(is_receipted(rig, name) for name in content), "receipts")
            assert await rigs.stop(process) == 0
        await server.server.until(lambda: bool(server.server.wills), "the farewell")
    assert server.files() == content
    kinds = server.server.event_kinds()
    assert kinds.count("file.sealed") == kinds.count("file.receipted") == 5
    assert all((logs(rig) / name).read_bytes() == data for name, data in content.items())  # held


async def test_lost_chunks_are_sent_again_and_nothing_else(rig: rigs.Rig, broker: Mosquitto) -> None:
    data = os.urandom(1_000 * KIB)
    put(logs(rig), "board.log", data)
    async with taker(broker) as server:
        server.lose = 5
        with rigs.agent(rig):
            await rigs.poll(lambda: is_receipted(rig, "board.log"), "the receipt")
    assert server.files() == {"board.log": data}
    assert server.chunks - server.chunks // 5 == 16  # 64 KiB each, none twice


async def test_an_agent_that_is_killed_goes_on_where_the_server_is(rig: rigs.Rig, broker: Mosquitto) -> None:
    data = os.urandom(4_000 * KIB)
    put(logs(rig), "board.log", data)
    async with taker(broker) as server:
        server.window_bytes = 64 * KIB
        for n in range(1, 4):
            with rigs.agent(rig) as process:
                await server.server.until(lambda: server.chunks > 10 * n, "chunks")  # noqa: B023  # awaited here
                process.kill()
        server.window_bytes = 1_024 * KIB
        with rigs.agent(rig):
            await rigs.poll(lambda: is_receipted(rig, "board.log"), "the receipt")
    assert len(server.taken) == 1  # never a second manifest
    assert server.files() == {"board.log": data}
    assert server.chunks <= 63 + 3 * 16


async def test_what_nobody_signed_deletes_and_receipts_nothing(rig: rigs.Rig, broker: Mosquitto) -> None:
    put(logs(rig), "board.log", os.urandom(300 * KIB))
    async with taker(broker) as server:
        server.receipts = None
        with rigs.agent(rig):
            await server.server.until(lambda: bool(server.files()), "the file")
            (upload,) = server.taken
            server.signer = STRANGER
            await server.receipt(upload)
            body = EvidenceReceipt(1, (server.receipted(upload),))
            for payload in (
                transfer.encode(body),
                transfer.encode(Reject(1, upload, Code.POLICY)),
                transfer.encode(State(1, upload, (), 0)),
                b"{}",
                b"\xff" * 100,
            ):
                await server.say(payload)
            server.signer = SERVER
            for wrong in ({"sha256": "0" * 64}, {"size": 1}, {"upload": "0" * 32}):
                await server.receipt(upload, **wrong)
            await server.server.until(lambda: "command.refused" in server.server.event_kinds(), "the refusal")
            assert rows(rig) == {"board.log": ("sealed", None)}
            await server.receipt(upload)  # and the right one still counts
            await rigs.poll(lambda: is_receipted(rig, "board.log"), "the receipt")
    assert (logs(rig) / "board.log").exists()


async def test_a_lost_receipt_comes_again_with_the_next_offer(rig: rigs.Rig, broker: Mosquitto) -> None:
    put(logs(rig), "board.log", b"x" * 100)
    async with taker(broker) as server:
        server.receipts = None
        with rigs.agent(rig) as process:
            await server.server.until(lambda: bool(server.files()), "the file")
            assert await rigs.stop(process) == 0
        server.receipts = StorageClass.LOGGED
        with rigs.agent(rig):
            await rigs.poll(lambda: is_receipted(rig, "board.log"), "the receipt")
    assert server.chunks == 1


async def test_a_file_that_changed_is_never_sent_as_if_it_were(rig: rigs.Rig, broker: Mosquitto) -> None:
    path = put(logs(rig), "board.log", os.urandom(600 * KIB))
    async with taker(broker) as server:
        server.window_bytes = 0
        with rigs.agent(rig):
            await server.server.until(lambda: server.offers > 0, "the offer")
            found = path.stat()
            with path.open("r+b") as file:
                file.seek(500_000)
                file.write(b"something else")
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))  # only the content tells
            server.window_bytes = 256 * KIB
            await server.server.until(lambda: bool(server.withdrawn), "the withdrawal")
            await server.server.until(lambda: "file.changed" in server.server.event_kinds(), "the event")
    assert rows(rig) == {"board.log": ("changed", None)}
    assert path.exists()
    (taken,) = server.taken.values()
    assert b"something else" not in taken.data


async def test_a_refused_file_is_told_and_kept(rig: rigs.Rig, broker: Mosquitto) -> None:
    put(logs(rig), "board.log", b"x" * 100)
    async with taker(broker) as server:
        server.reject = Reject(1, "0" * 32, Code.POLICY, detail="not here")
        with rigs.agent(rig):
            await server.server.until(lambda: "file.refused" in server.server.event_kinds(), "the event")
    assert server.offers == 1
    assert rows(rig) == {"board.log": ("sealed", None)}


async def test_hashes_are_told_when_they_are_asked_for(rig: rigs.Rig, broker: Mosquitto) -> None:
    put(logs(rig), "board.log", os.urandom(200 * KIB))
    async with taker(broker) as server:
        server.ask_leaves = True
        with rigs.agent(rig):
            await server.server.until(lambda: bool(server.leaves), "the hashes")
    (taken,) = server.taken.values()
    assert len(server.leaves[0].hashes) == 32 * taken.manifest.chunks
