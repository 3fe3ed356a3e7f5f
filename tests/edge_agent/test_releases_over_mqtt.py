"""Releases where only MQTT passes: the agent that runs passes on what its child asks, over both brokers, and the
server answers from what its listener gives, too. What is refused over HTTPS is refused here.
"""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import mqtt5
import pytest

from broker_config import topics
from broker_config.ids import DeviceId, server_client_id
from broker_config.limits import KIB
from broker_config.release_chunks import AskRelease, Part, decode_part, encode_ask, encode_part
from broker_config.releases import ImageKind
from broker_config.topics import Down, Up
from edge_agent import config
from edge_agent.adapters import fetching, files
from edge_agent.adapters import system as systems
from edge_agent.adapters.release_client import PART
from edge_agent.adapters.release_fetcher import NotNowError
from edge_agent.adapters.release_relay import ReleaseRelay
from edge_agent.adapters.release_relayed import LENGTH, WINDOW_BYTES_MIN, RelayedFetcher, StdPipe
from edge_agent.agent import Agent
from edge_agent.fetch_release import BAD_CONFIG, main
from edge_agent.releases import Answer, Attack, Fetched, Pace, RefusedReleaseError, Wanted
from fleet_server.adapters import mqtt
from fleet_server.adapters.mqtt import LinkSettings
from fleet_server.release_answers import answer
from fleet_server.release_service import ReleaseService
from tests.edge_agent import rig as rigs
from tests.releases import COUNTER, EVIL, GOOD, HW, IMAGE, Repository, custom, hashes_of
from tests.servers import HOST, EmbeddedBroker, Mosquitto, embedded, mosquitto

Broker = EmbeddedBroker | Mosquitto
STARTS: Final[dict[str, Callable[[Path], AbstractContextManager[Broker]]]] = {
    "mosquitto": mosquitto,
    "embedded": embedded,
}
WANTED: Final = Wanted(GOOD, HW, ImageKind.MCU, 0)
TABLE: Final = f'[releases]\nroot_file = "releases-root.json"\nhardware = "{HW}"\nover = "mqtt"\n'
ID: Final = "00112233445566aa"


@pytest.fixture(params=[pytest.param("mosquitto", marks=pytest.mark.server("mosquitto")), "embedded"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    with STARTS[request.param](tmp_path / "broker") as found:
        yield found


@pytest.fixture(scope="module")
def one_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with embedded(tmp_path_factory.mktemp("broker")) as found:
        yield found


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "releases")
    made.begin()
    made.release()
    return made


@dataclass
class Scene:
    """A server that gives releases, and an agent that runs."""

    broker: Broker
    service: ReleaseService
    agent: Agent
    rig: rigs.Rig

    @property
    def part(self) -> Path:
        return self.rig.state_dir / "releases/images" / f"{hashes_of(IMAGE)}{PART}"

    async def fetch(self) -> Answer:
        return await fetching.fetched(self.rig.config, WANTED, self.agent._relay)


def lay_out(directory: Path, broker: Broker | None, repository: Repository) -> rigs.Rig:
    rig = rigs.lay_out(directory, broker, extra=TABLE)
    root = directory / "releases-root.json"
    root.write_bytes(repository.file("root").read_bytes())
    root.chmod(0o600)
    return rig


def link_settings(broker: Broker) -> LinkSettings:
    own = broker.server()
    security = mqtt.security(own.ca, own.certificate, own.key)
    return LinkSettings(HOST, broker.server_port, server_client_id(broker.site, work="releases"), 30, security)


@contextlib.asynccontextmanager
async def serving(broker: Broker, repository: Repository, bytes_s_max: int) -> AsyncIterator[ReleaseService]:
    service = ReleaseService(
        (0, 255), link_settings(broker), repository.store, bytes_s_max=bytes_s_max, rng=random.Random(7)
    )
    stop = asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    try:
        await rigs.poll(lambda: service._link is not None, "the service's link")
        yield service
    finally:
        stop.set()
        await running


@contextlib.asynccontextmanager
async def scene(
    directory: Path, broker: Broker, repository: Repository, bytes_s_max: int = 8 * KIB * KIB
) -> AsyncIterator[Scene]:
    rig = lay_out(directory, broker, repository)
    settings = config.load(rig.config)
    keys = files.read_all_keys(settings.mac_file, settings.signers_file)
    table = settings.file.system
    board = systems.system(settings.boot_id_file, ntp=table.ntp, mono_add_ms=table.mono_add_ms)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    async with serving(broker, repository, bytes_s_max) as service:
        agent, stop = Agent(settings, board, keys, frozenset()), asyncio.Event()
        running = asyncio.create_task(agent.run({}, stop))
        try:
            await rigs.poll(lambda: agent._connecting.link is not None or running.done(), "the agent's connection")
            yield Scene(broker, service, agent, rig)
        finally:
            stop.set()
            await running


def whole(fetched: Fetched) -> bytes:
    return Path(fetched.file).read_bytes()


async def test_a_link_that_is_cut_half_way_is_no_attack_and_the_image_goes_on(
    broker: Broker, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "AGAIN_S_MIN", 0.2)
    async with scene(tmp_path / "device", broker, repository, bytes_s_max=100_000) as made:
        fetching_it = asyncio.create_task(fetching.fetched_at_last(made.rig.config, WANTED, made.agent._relay))
        await rigs.poll(lambda: made.part.is_file() and made.part.stat().st_size > 0, "the image has begun")
        assert not fetching_it.done()
        epoch = made.agent._connecting.epoch
        await asyncio.to_thread(broker.restart)
        fetched, why = await fetching_it
        assert fetched is not None, why
        assert whole(fetched) == IMAGE
        assert made.agent._connecting.epoch != epoch
        assert (fetched.counter, fetched.sha256) == (COUNTER, hashes_of(IMAGE))


async def test_what_is_there_of_an_image_is_not_asked_for_again(
    one_broker: Broker, repository: Repository, tmp_path: Path
) -> None:
    async with scene(tmp_path / "device", one_broker, repository) as made:
        made.part.parent.mkdir(parents=True, mode=0o700)
        made.part.write_bytes(IMAGE[:150_000])
        answer = await made.fetch()
        assert answer.fetched is not None, answer
        assert whole(answer.fetched) == IMAGE
        assert made.service.facts.answered_bytes < 100_000  # and the metadata


async def test_what_was_tampered_with_is_refused_with_the_attack_s_name(
    one_broker: Broker, repository: Repository, tmp_path: Path
) -> None:
    older = repository.copied(tmp_path / "older")
    newer = repository
    newer.release(b"newer", custom(13, version="1.5.0"))
    async with scene(tmp_path / "device", one_broker, newer) as made:
        image = newer.image()
        image.write_bytes(EVIL)
        seen = [await made.fetch()]
        image.write_bytes(IMAGE)
        for role in ("timestamp", "snapshot", "targets"):
            newer.file(role).unlink()
        for role in ("timestamp", "snapshot", "targets"):
            old = older.file(role)
            (newer.file("root").parent / old.name).write_bytes(old.read_bytes())
        seen.append(await made.fetch())
        assert [each.refused and each.refused.attack for each in seen] == [
            Attack.ARBITRARY,
            Attack.ROLLBACK,
        ]
        assert list(made.part.parent.glob(hashes_of(IMAGE))) == []


async def test_only_a_device_s_own_question_is_answered_and_to_it_alone(
    one_broker: Broker, repository: Repository, tmp_path: Path
) -> None:
    stray = topics.up(DeviceId("car-7"), Up.RELEASE).replace("/04/", "/05/")
    ask = encode_ask(AskRelease(1, ID, "metadata/timestamp.json", 0, 65_536))
    async with scene(tmp_path / "device", one_broker, repository) as made:
        link = made.service._link
        assert link is not None
        made.service._on_packets(
            link,
            [
                mqtt5.PublishPacket(stray, ask),
                mqtt5.PublishPacket(topics.up(DeviceId("car-7"), Up.RELEASE), b'{"t":"release"}'),
            ],
        )
        assert made.service.facts.strays == 2
        heard: list[str] = []
        made.agent._hearing.told = lambda message: heard.append(message.topic)  # type: ignore[method-assign]
        made.agent._connecting._told = made.agent._hearing.told
        assert made.agent._connecting.send(Up.RELEASE, ask)
        await rigs.poll(lambda: topics.down(DeviceId("car-7"), Down.CHUNK) in heard, "the answer")
        assert made.service.facts.windows == 1


async def test_without_a_connection_the_child_says_not_now(repository: Repository, tmp_path: Path) -> None:
    rig = lay_out(tmp_path / "device", None, repository)
    answer = await fetching.fetched(rig.config, WANTED, ReleaseRelay(lambda _question: False))
    assert answer.not_now == "no connection to the broker"


def test_by_hand_it_is_said_that_the_agent_fetches(
    repository: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = lay_out(tmp_path / "device", None, repository)
    assert main([GOOD, "--config", str(rig.config), "--installed", "0"]) == BAD_CONFIG
    assert "the agent that runs fetches" in capsys.readouterr().err


# the child's side alone: what comes late, damaged, twice or never


class Asked:
    """A broker that a test plays; its clock moves only while somebody waits. ``answers``: of each question."""

    def __init__(self, answers: Callable[[int, AskRelease], list[Part]]) -> None:
        self.answers = answers
        self.asks: list[AskRelease] = []
        self.coming: list[Part] = []
        self.now_s = 0.0

    def ask(self, ask: AskRelease) -> None:
        self.asks.append(ask)
        self.coming += self.answers(len(self.asks), ask)

    def part(self, seconds: float) -> Part | None:
        if self.coming:
            return self.coming.pop(0)
        self.now_s += seconds
        return None

    def fetcher(self, pace: Pace | None = None) -> RelayedFetcher:
        return RelayedFetcher(self, pace or Pace(), lambda: self.now_s, lambda low, _high: low)


def of(repository: Repository, ask: AskRelease) -> list[Part]:
    return [decode_part(each) for each in answer(repository.store, ask)]


def stored() -> str:
    return f"mcu/dock-2/{hashes_of(IMAGE)}.1.4.0.bin"


def test_what_is_lost_is_asked_for_again_in_a_smaller_window(repository: Repository) -> None:
    asked = Asked(lambda n, ask: [] if n == 2 else of(repository, ask))
    fetcher = asked.fetcher()
    fetcher.begin()
    assert b"".join(fetcher.image(stored(), 0)) == IMAGE
    first, lost, again, *_ = asked.asks
    assert lost.offset == again.offset == first.length
    assert lost.length > again.length >= WINDOW_BYTES_MIN
    assert len({each.id for each in asked.asks}) == len(asked.asks)


def test_what_comes_twice_or_was_not_asked_for_is_nothing(repository: Repository) -> None:
    def answers(_n: int, ask: AskRelease) -> list[Part]:
        good = of(repository, ask)
        return [Part(ID, ask.offset, len(EVIL), EVIL[:100]), *good, *good]

    asked = Asked(answers)
    fetcher = asked.fetcher()
    fetcher.begin()
    assert b"".join(fetcher.image(stored(), 70_000)) == IMAGE[70_000:]


def test_silence_is_not_now_and_a_trickle_is_slow_retrieval(repository: Repository) -> None:
    silent = Asked(lambda _n, _ask: []).fetcher()
    silent.begin()
    with pytest.raises(NotNowError, match="got none for 20 s"):
        next(silent.image(stored(), 0))

    slow = Asked(lambda n, ask: [each._replace(data=each.data[:1]) for each in of(repository, ask)] if n % 2 else [])
    fetcher = slow.fetcher()
    fetcher.begin()
    with pytest.raises(RefusedReleaseError, match="slow retrieval"):
        list(fetcher.image(stored(), 0))


def test_the_agent_s_end_may_be_cut_anywhere() -> None:
    reading, writing = os.pipe()
    part = Part(ID, 0, 3, b"abc")
    message = encode_part(part)
    with open(reading, "rb", buffering=0) as end, open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a descriptor
        pipe = StdPipe(end, nowhere)
        for piece in (LENGTH.pack(len(message))[:2], LENGTH.pack(len(message))[2:] + message[:9], message[9:]):
            assert pipe.part(0.0) is None
            os.write(writing, piece)
        assert pipe.part(5.0) == part
        os.write(writing, LENGTH.pack(2**31))
        with pytest.raises(NotNowError, match="from the agent"):
            pipe.part(5.0)
        os.close(writing)
