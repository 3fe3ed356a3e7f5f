"""A device takes an image that was signed for it, and each attack on that has its name; a client that trusts the
server takes what the attacker wants.
"""

import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import pytest

from broker_config.releases import METADATA_PATH, TARGETS_PATH, ImageKind
from edge_agent import config, fetch_release
from edge_agent.__main__ import main
from edge_agent.adapters import enrolment, fetching
from edge_agent.adapters.enrolment import EnrolmentError, Listener
from edge_agent.adapters.release_client import PART
from edge_agent.adapters.release_fetcher import HttpsFetcher, NotNowError
from edge_agent.config import ConfigError
from edge_agent.fetch_release import BAD_CONFIG, FETCHED, REFUSED
from edge_agent.releases import USUAL, Answer, Attack, Pace, RefusedReleaseError, Wanted
from fleet_server.releases import newest, roots
from fleet_server.releases.metadata import sign
from tests.enrolment import Office
from tests.releases import (
    ANNA,
    BEN,
    COUNTER,
    EVIL,
    GOOD,
    HURRIED,
    HW,
    IMAGE,
    MINUTE_D,
    PERSONS,
    SERVER,
    STRANGER,
    Network,
    Repository,
    Shown,
    Stage,
    custom,
    days_ago,
    desk_in,
    hashes_of,
    stage_of,
    trickling,
)
from tests.servers import wait_until

OLD: Final = b"an older image, with a hole that is known"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Office, Shown, Network, Path]]:
    with desk_in(tmp_path_factory.mktemp("desk")) as running:
        yield running


@pytest.fixture
def stage(made: tuple[Office, Shown, Network, Path], tmp_path: Path) -> Iterator[Stage]:
    with stage_of(made, tmp_path) as running:
        yield running


# what is signed for the device, it takes


def test_what_two_persons_signed_is_taken_whole(stage: Stage) -> None:
    fetched = stage.fetch(installed=COUNTER - 1)
    assert Path(fetched.file).read_bytes() == IMAGE
    assert (fetched.version, fetched.counter, fetched.sha256) == ("1.4.0", COUNTER, hashes_of(IMAGE))
    assert stat.S_IMODE(Path(fetched.file).stat().st_mode) == 0o600


def test_what_is_there_already_is_not_fetched_again(stage: Stage) -> None:
    stage.fetch()
    assert stage.network.ranges == [""]
    stage.fetch()
    assert stage.network.ranges == [""]


def test_the_root_came_with_the_identity_for_its_owner_only(stage: Stage) -> None:
    root = stage.device / "releases-root.json"
    assert root.read_bytes() == stage.repository.file("root").read_bytes()
    assert stat.S_IMODE(root.stat().st_mode) == 0o600
    root.chmod(0o644)
    with pytest.raises(ConfigError, match="0600"):
        stage.fetch()


def test_who_signs_may_change_and_devices_follow(stage: Stage) -> None:
    current = stage.repository.publisher.root()
    assert current is not None
    others = frozenset({BEN.public, STRANGER.public})
    new = roots.next_root(current, targets=others, now=stage.repository.now())
    for person in PERSONS:
        sign(new, person)
    stage.repository.publisher.adopt_root(new.to_bytes(), SERVER)
    stage.repository.adopt(*stage.repository.with_one(b"newer", custom(13, version="1.5.0")), by=(BEN, STRANGER))
    assert Path(stage.fetch("mcu/dock-2/1.5.0.bin").file).read_bytes() == b"newer"


def test_a_root_with_another_key_of_the_server_ends_what_a_thief_of_the_first_did(stage: Stage) -> None:
    true = stage.repository
    far = datetime.now(UTC) + timedelta(days=3_650)
    stolen = true.copied(stage.directory / "stolen")
    listed = stolen.publisher.targets()
    assert listed is not None
    snapshot = newest.new_snapshot(int(far.timestamp()), listed, stolen.file("targets").read_bytes(), SERVER, now=far)
    stolen.store.put("snapshot", snapshot.signed.version, snapshot.to_bytes())
    stamp = newest.new_timestamp(int(far.timestamp()), snapshot, snapshot.to_bytes(), SERVER, now=far)
    stolen.store.put("timestamp", stamp.signed.version, stamp.to_bytes())
    stage.show(stolen)
    stage.fetch()
    stage.show(true)
    with pytest.raises(RefusedReleaseError, match="rollback"):
        stage.fetch()
    current = true.publisher.root()
    assert current is not None
    new = roots.next_root(current, online=STRANGER.public, now=true.now())
    for person in PERSONS:
        sign(new, person)
    true.publisher.adopt_root(new.to_bytes(), STRANGER)
    assert Path(stage.fetch().file).read_bytes() == IMAGE


# attacks: how each is made, and what is asked for then


def arbitrary(stage: Stage) -> str:
    stage.repository.image().write_bytes(EVIL)
    return GOOD


def _older_and_newer(stage: Stage) -> tuple[Repository, Repository]:
    older = stage.repository.copied(stage.directory / "older")
    stage.repository.release(b"newer", custom(13, version="1.5.0"))
    return older, stage.repository


def rollback(stage: Stage) -> str:
    """What was published once is shown again, to a device that has seen what followed."""
    older, _ = _older_and_newer(stage)
    stage.fetch("mcu/dock-2/1.5.0.bin")
    stage.show(older)
    return GOOD


def rollback_of_the_list(stage: Stage) -> str:
    """By who has the server's key: a new snapshot of the old list."""
    older, _ = _older_and_newer(stage)
    stage.fetch("mcu/dock-2/1.5.0.bin")
    stage.show(older)
    older.publisher.refresh(SERVER, force=True)
    older.publisher.refresh(SERVER, force=True)
    return GOOD


def rollback_of_the_device(stage: Stage) -> str:
    """An old release that is still in the list is ordered."""
    stage.repository.release(OLD, custom(3, version="1.0.3"))
    return "mcu/dock-2/1.0.3.bin"


def freeze(stage: Stage) -> str:
    """The news is kept back until what was signed last has ended."""
    frozen = Repository(stage.directory / "frozen", days_ago(8))
    frozen.begin()
    frozen.release()
    _trusting(stage, frozen)
    return GOOD


def mixed_snapshot(stage: Stage) -> str:
    older, newer = _older_and_newer(stage)
    newer.file("snapshot").write_bytes(older.file("snapshot").read_bytes())
    return GOOD


def mixed_list(stage: Stage) -> str:
    older, newer = _older_and_newer(stage)
    newer.file("targets").write_bytes(older.file("targets").read_bytes())
    return GOOD


def endless_metadata(stage: Stage) -> str:
    with stage.repository.file("timestamp").open("ab") as file:
        file.write(b" " * 1_000_000)
    return GOOD


def endless_image(stage: Stage) -> str:
    with stage.repository.image().open("ab") as file:
        file.write(bytes(5_000_000))
    return GOOD


def slow_metadata(stage: Stage) -> str:
    stage.network.trickle = METADATA_PATH
    return GOOD


def slow_image(stage: Stage) -> str:
    stage.network.trickle = TARGETS_PATH
    return GOOD


def wrong_target(stage: Stage) -> str:
    stage.repository.release(EVIL, custom(14, hw="dock-9", version="1.6.0"))
    return "mcu/dock-9/1.6.0.bin"


def one_person_for_the_root(stage: Stage) -> str:
    """One person's key was stolen, and makes the thief's the only ones that count."""
    current = stage.repository.publisher.root()
    assert current is not None
    thieves = frozenset({ANNA.public, STRANGER.public})
    new = roots.next_root(current, root=thieves, targets=thieves, now=stage.repository.now())
    for key in (ANNA, STRANGER):
        sign(new, key)
    stage.repository.store.put("root", 2, new.to_bytes())
    stage.repository.stolen(*stage.repository.with_one(EVIL, custom(13, version="1.5.0")), by=(ANNA, STRANGER))
    return "mcu/dock-2/1.5.0.bin"


def one_person(stage: Stage) -> str:
    """One person's key was stolen, and the server's."""
    stage.repository.stolen(*stage.repository.with_one(EVIL, custom(13, version="1.5.0")), by=(ANNA,))
    return "mcu/dock-2/1.5.0.bin"


def strangers(stage: Stage) -> str:
    """The server's own key counts for nothing there, and one person counts once."""
    stage.repository.stolen(
        *stage.repository.with_one(EVIL, custom(13, version="1.5.0")), by=(ANNA, SERVER, STRANGER)
    )
    return "mcu/dock-2/1.5.0.bin"


def _trusting(stage: Stage, repository: Repository) -> None:
    """The device was given the root of *repository*."""
    (stage.device / "releases-root.json").write_bytes(repository.file("root").read_bytes())
    stage.show(repository)


ATTACKS: Final[tuple[tuple[Callable[[Stage], str], Attack], ...]] = (
    (arbitrary, Attack.ARBITRARY),
    (rollback, Attack.ROLLBACK),
    (rollback_of_the_list, Attack.ROLLBACK),
    (rollback_of_the_device, Attack.ROLLBACK),
    (freeze, Attack.FREEZE),
    (mixed_snapshot, Attack.MIX_AND_MATCH),
    (mixed_list, Attack.MIX_AND_MATCH),
    (endless_metadata, Attack.ENDLESS_DATA),
    (endless_image, Attack.ENDLESS_DATA),
    (slow_metadata, Attack.SLOW_RETRIEVAL),
    (slow_image, Attack.SLOW_RETRIEVAL),
    (wrong_target, Attack.WRONG_TARGET),
    (one_person, Attack.THRESHOLD),
    (strangers, Attack.THRESHOLD),
    (one_person_for_the_root, Attack.THRESHOLD),
)
IDS: Final = [make.__name__ for make, _ in ATTACKS]


@pytest.mark.parametrize(("make", "attack"), ATTACKS, ids=IDS)
def test_each_attack_is_refused_with_its_name(stage: Stage, make: Callable[[Stage], str], attack: Attack) -> None:
    path = make(stage)
    before = stage.kept()
    with pytest.raises(RefusedReleaseError, match=f"refused, {attack.value}: ") as caught:
        stage.fetch(path, installed=COUNTER)
    assert caught.value.refused.attack is attack
    assert stage.kept() == before


@pytest.mark.parametrize(
    ("make", "taken"),
    [
        (arbitrary, EVIL),
        (rollback, IMAGE),
        (rollback_of_the_list, IMAGE),
        (rollback_of_the_device, OLD),
        (freeze, IMAGE),
        (mixed_snapshot, IMAGE),
        (mixed_list, IMAGE),
        (endless_metadata, IMAGE),
        (endless_image, IMAGE + bytes(5_000_000)),
        (wrong_target, EVIL),
        (one_person, EVIL),
        (strangers, EVIL),
        (one_person_for_the_root, EVIL),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_client_that_trusts_the_server_takes_it(stage: Stage, make: Callable[[Stage], str], taken: bytes) -> None:
    assert stage.credulous(make(stage)) == taken


def test_a_client_that_only_waits_for_the_next_byte_waits_on(stage: Stage) -> None:
    slow_image(stage)
    with stage.client() as client:
        path = f"{TARGETS_PATH}/mcu/dock-2/{hashes_of(IMAGE)}.1.4.0.bin"
        with client.stream("GET", path) as answer:
            came = answer.iter_raw()
            assert (
                b"".join(next(came) for _ in range(40)) == IMAGE[:40]
            )  # for two seconds; the device gave up in half


def test_what_nobody_signed_is_arbitrary_too(stage: Stage) -> None:
    with pytest.raises(RefusedReleaseError, match=r"arbitrary software: .* no list that was signed"):
        stage.fetch("mcu/dock-2/6.6.6.bin")


def test_a_head_that_comes_byte_by_byte_is_slow_retrieval_too(stage: Stage) -> None:
    with trickling(stage.desk) as url:
        fetcher = HttpsFetcher(Listener(url, stage.desk.ca_file), lambda: "a session", HURRIED)
        with pytest.raises(RefusedReleaseError, match="slow retrieval"):
            fetcher.download_bytes(f"{url}/releases/metadata/timestamp.json", 16_384)


def test_nothing_else_of_the_listener_is_waited_for_byte_by_byte(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment, "ANSWER_S_MAX", 0.5)
    with trickling(stage.desk) as url, pytest.raises(EnrolmentError, match=r"no whole answer within 0\.5 s"):
        Listener(url, stage.desk.ca_file).nonce()


def test_an_attack_leaves_a_device_that_takes_the_next_good_release(stage: Stage) -> None:
    good = stage.repository
    stage.show(good.copied(stage.directory / "evil"))
    arbitrary(stage)
    with pytest.raises(RefusedReleaseError):
        stage.fetch()
    stage.show(good)
    assert Path(stage.fetch().file).read_bytes() == IMAGE


# older on purpose


def test_a_signed_exception_lets_an_older_release_follow_what_it_names(stage: Stage) -> None:
    stage.repository.release(OLD, custom(3, version="1.0.3", over=(COUNTER, 11)))
    path = "mcu/dock-2/1.0.3.bin"
    with pytest.raises(RefusedReleaseError, match=r"rollback: release counter 3 .* is below 13"):
        stage.fetch(path, installed=13)
    assert Path(stage.fetch(path, installed=COUNTER).file).read_bytes() == OLD


def test_a_session_that_is_over_is_followed_by_another(stage: Stage) -> None:
    stage.desk.later(MINUTE_D)
    settings = config.load(stage.device / "agent.toml")
    listener = Listener(stage.desk.url, settings.ca_file)
    answers = iter(["0123.car-7.00", fetch_release._session(settings, listener)])
    fetcher = HttpsFetcher(listener, lambda: next(answers), USUAL)
    stamp = fetcher.download_bytes(f"{listener.url}{METADATA_PATH}/timestamp.json", 16_384)
    assert stamp == stage.repository.file("timestamp").read_bytes()
    with pytest.raises(StopIteration):
        next(answers)


def test_the_same_release_may_be_taken_again(stage: Stage) -> None:
    assert stage.fetch(installed=COUNTER).counter == COUNTER


def test_a_clock_that_is_behind_cannot_tell_what_has_ended(stage: Stage) -> None:
    with pytest.raises(RefusedReleaseError, match="freeze: expected a clock"):
        stage.fetch(not_before_ms=2**52)


# what is cut off goes on


def test_an_image_goes_on_where_the_connection_was_cut(stage: Stage) -> None:
    stage.network.cut_after = 90_000
    assert Path(stage.fetch().file).read_bytes() == IMAGE
    offsets = [int(each.removeprefix("bytes=").removesuffix("-") or 0) for each in stage.network.ranges]
    assert offsets[0] == 0
    assert len(offsets) >= 3
    assert offsets == sorted(set(offsets))


def test_a_later_run_goes_on_where_the_last_one_ended(stage: Stage) -> None:
    part = stage.state / "images" / f"{hashes_of(IMAGE)}{PART}"
    stage.fetch()
    (stage.state / "images" / hashes_of(IMAGE)).rename(part)
    part.write_bytes(IMAGE[:70_000])
    stage.network.cut_after = 0
    with pytest.raises(NotNowError):
        stage.fetch()
    assert part.read_bytes() == IMAGE[:70_000]
    stage.network.cut_after = None
    stage.network.ranges.clear()
    assert Path(stage.fetch().file).read_bytes() == IMAGE
    assert stage.network.ranges == ["bytes=70000-"]


def test_a_child_that_was_killed_half_way_is_followed_by_one_that_goes_on(stage: Stage) -> None:
    part = stage.state / "images" / f"{hashes_of(IMAGE)}{PART}"
    stage.network.hold_after = 150_000
    child = subprocess.Popen(_argv(stage, GOOD, "--installed", "0"))
    try:
        wait_until(lambda: part.is_file() and part.stat().st_size >= 131_072, "half of the image is there")
        with pytest.raises(NotNowError, match="another one fetches"):
            stage.fetch()
    finally:
        child.kill()
        child.wait()
    half = part.stat().st_size
    stage.network.hold_after = None
    stage.network.ranges.clear()
    assert Path(stage.fetch().file).read_bytes() == IMAGE
    assert stage.network.ranges == [f"bytes={half}-"]


@pytest.mark.parametrize("left", [b"\0" * 50_000, b"\0" * len(IMAGE), b"\0" * (len(IMAGE) + 1)])
def test_what_a_power_cut_left_of_an_image_is_no_attack(stage: Stage, left: bytes) -> None:
    images = stage.state / "images"
    images.mkdir(parents=True)
    (images / f"{hashes_of(IMAGE)}{PART}").write_bytes(left)
    (images / f"{'0' * 64}{PART}").write_bytes(left)  # of another one, which nobody wants any more
    assert Path(stage.fetch().file).read_bytes() == IMAGE
    assert [each.name for each in images.iterdir()] == [hashes_of(IMAGE)]


def test_a_server_that_cannot_be_reached_is_no_attack(stage: Stage) -> None:
    file = stage.device / "agent.toml"
    file.write_text(file.read_text().replace(stage.desk.url, "https://127.0.0.1:1"))
    with pytest.raises(NotNowError, match="cannot reach"):
        stage.fetch()


def test_a_list_that_nobody_has_published_is_not_now(stage: Stage) -> None:
    stage.repository.file("timestamp").unlink()
    with pytest.raises(NotNowError, match="404"):
        stage.fetch()


# the command, as the agent starts it: a process of its own


def _argv(stage: Stage, *arguments: str) -> list[str]:
    stage.desk.later(MINUTE_D)
    command = [sys.executable, "-I", "-m", "edge_agent.fetch_release", "--config", str(stage.device / "agent.toml")]
    return [*command, "--hw", HW, *arguments]


def _command(stage: Stage, *arguments: str) -> tuple[int, bytes, bytes]:
    done = subprocess.run(_argv(stage, *arguments), capture_output=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_command_says_what_it_took_or_which_attack_it_saw(stage: Stage) -> None:
    code, out, _ = _command(stage, GOOD, "--installed", "11", "--json")
    fetched = msgspec.json.decode(out, type=Answer).fetched
    assert code == FETCHED
    assert fetched is not None
    assert Path(fetched.file).read_bytes() == IMAGE
    code, out, _ = _command(stage, GOOD, "--installed", "13", "--json")
    refused = msgspec.json.decode(out, type=Answer).refused
    assert code == REFUSED
    assert refused is not None
    assert refused.attack is Attack.ROLLBACK
    code, _, said = _command(stage, "mcu/dock-2/../1.4.0.bin", "--installed", "0")
    assert code == BAD_CONFIG
    assert b"expected KIND/HARDWARE/NAME" in said


async def test_the_agent_has_a_child_fetch_it(stage: Stage) -> None:
    stage.desk.later(MINUTE_D)
    wanted = Wanted(GOOD, HW, ImageKind.MCU, COUNTER)
    answer = await fetching.fetched(stage.device / "agent.toml", wanted)
    assert answer.fetched is not None
    assert stage.kept() == [IMAGE]
    wanted = Wanted(GOOD, "dock-9", ImageKind.MCU, COUNTER)
    answer = await fetching.fetched(stage.device / "agent.toml", wanted)
    assert answer.refused is not None
    assert answer.refused.attack is Attack.WRONG_TARGET
    (stage.device / "releases-root.json").write_text("{}")
    with pytest.raises(fetching.FetchingError, match="root_file: expected a signed root"):
        await fetching.fetched(stage.device / "agent.toml", wanted)


def test_what_asks_the_child_loads_neither_the_client_nor_its_libraries() -> None:
    heavy = "{'tuf', 'securesystemslib', 'urllib3', 'cryptography'}"
    code = f"import sys, edge_agent.adapters.fetching; print(*{heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
    assert done.stdout.strip() == b""


def test_a_device_that_is_told_of_no_releases_says_so(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    file = stage.device / "agent.toml"
    file.write_text(file.read_text().partition("[releases]")[0] + file.read_text().partition("[receipts]")[2])
    file.write_text(file.read_text().replace("mac_file", "[receipts]\nmac_file"))
    assert main(["fetch-release", GOOD, "--config", str(file), "--installed", "0"]) == BAD_CONFIG
    assert "expected [enrolment] and [releases]" in capsys.readouterr().err


def test_a_pace_is_judged_over_all_connections() -> None:
    pace = Pace(grace_s=20, bytes_s_min=1_000)
    pace.check(0, 20)
    pace.check(1_000, 21)
    with pytest.raises(RefusedReleaseError, match="slow retrieval"):
        pace.check(999, 21)


def test_the_newest_few_images_stay(stage: Stage) -> None:
    for n in range(6):
        stage.repository.release(b"%d" % n, custom(20 + n, version=f"2.0.{n}"))
        stage.fetch(f"mcu/dock-2/2.0.{n}.bin")
    assert sorted(stage.kept()) == [b"2", b"3", b"4", b"5"]
