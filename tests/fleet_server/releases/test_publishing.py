"""What may be released is what enough persons have signed; the server signs what is newest, and a cut leaves one."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from broker_config.ids import ContractError
from broker_config.releases import Custom, ImageKind, is_metadata_name, is_stored_path, read_custom, target_path
from fleet_server.adapters.signing_key import FileKey, new_key_pem
from fleet_server.releases import roots, targets
from fleet_server.releases.metadata import ReleaseError, ThresholdError, read, sign
from fleet_server.releases.newest import SNAPSHOT_DAYS, TIMESTAMP_DAYS
from fleet_server.releases.publishing import ending
from fleet_server.releases.roots import Signers
from tests.releases import ANNA, BEN, COUNTER, GOOD, IMAGE, PERSONS, SERVER, SIGNERS, STRANGER, Repository, custom

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


class Clock:
    """Set by the test."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def later(self, **by: float) -> None:
        self.now += timedelta(**by)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def repository(tmp_path: Path, clock: Clock) -> Repository:
    made = Repository(tmp_path / "releases", clock)
    made.begin()
    return made


# who may sign


@pytest.mark.parametrize(
    ("signers", "expected"),
    [
        (SIGNERS._replace(root=frozenset({ANNA.public})), "root: expected at least 2 keys"),
        (SIGNERS._replace(targets=frozenset({ANNA.public})), "targets: expected at least 2 keys"),
        (SIGNERS._replace(threshold=1), "expected at least 2"),
        (SIGNERS._replace(threshold=3), "expected at least 3"),
        # a server that could release alone, with one person
        (SIGNERS._replace(targets=frozenset({ANNA.public, SERVER.public})), "got the server's own"),
    ],
)
def test_no_root_lets_one_person_or_the_server_release(signers: Signers, expected: str) -> None:
    with pytest.raises(ReleaseError, match=expected):
        roots.first_root(signers, now=NOW)


@pytest.mark.parametrize(
    ("by", "follows"),
    [
        ((ANNA, BEN), True),
        ((ANNA,), False),
        ((BEN, STRANGER), False),  # enough for the new one, too few for the one before
    ],
)
def test_a_root_follows_if_signed_as_both_ask(repository: Repository, by: tuple[FileKey, ...], follows: bool) -> None:
    current = repository.publisher.root()
    assert current is not None
    changed = frozenset({ANNA.public, BEN.public, STRANGER.public})
    new = roots.next_root(current, root=changed, now=NOW)
    for person in by:
        sign(new, person)
    if follows:
        assert repository.publisher.adopt_root(new.to_bytes(), SERVER).root == 2
    else:
        with pytest.raises(ThresholdError, match="root: expected 2 signatures"):
            repository.publisher.adopt_root(new.to_bytes(), SERVER)
        assert repository.publisher.standing().published.root == 1


def test_a_root_that_skips_one_does_not_follow(repository: Repository) -> None:
    current = repository.publisher.root()
    assert current is not None
    second = roots.next_root(current, now=NOW)
    third = roots.next_root(second, now=NOW)
    for person in PERSONS:
        sign(third, person)
    with pytest.raises(ReleaseError, match="expected version 2, got 3"):
        repository.publisher.adopt_root(third.to_bytes(), SERVER)


def test_another_key_of_the_server_is_taken_up_at_once(repository: Repository) -> None:
    other = FileKey(new_key_pem())
    current = repository.publisher.root()
    assert current is not None
    new = roots.next_root(current, online=other.public, now=NOW)
    for person in PERSONS:
        sign(new, person)
    with pytest.raises(ReleaseError, match="this server's own key"):
        repository.publisher.adopt_root(new.to_bytes(), SERVER)
    before = repository.publisher.standing().published
    after = repository.publisher.adopt_root(new.to_bytes(), other)
    assert after.timestamp > before.timestamp
    assert after.snapshot > before.snapshot
    with pytest.raises(ThresholdError):
        repository.publisher.refresh(SERVER, force=True)


def test_a_list_that_who_signed_may_not_sign_any_more_is_told(repository: Repository) -> None:
    current = repository.publisher.root()
    assert current is not None
    new = roots.next_root(current, targets=frozenset({BEN.public, STRANGER.public}), now=NOW)
    for person in PERSONS:
        sign(new, person)
    repository.publisher.adopt_root(new.to_bytes(), SERVER)
    assert repository.publisher.standing().unsigned
    repository.adopt(targets.renewed(repository.publisher.targets(), now=NOW), by=(BEN, STRANGER))
    assert not repository.publisher.standing().unsigned


# what is released


@pytest.mark.parametrize("by", [(), (ANNA,), (ANNA, SERVER), (ANNA, STRANGER)])
def test_too_few_signatures_publish_nothing(repository: Repository, by: tuple[FileKey, ...]) -> None:
    listed, images = repository.with_one()
    with pytest.raises(ThresholdError, match="targets: expected 2 signatures"):
        repository.adopt(listed, images, by)
    assert repository.publisher.standing().releases == ()
    assert not repository.store.has_image(GOOD, listed.signed.targets[GOOD].hashes["sha256"])


def test_an_image_is_the_one_that_was_signed(repository: Repository) -> None:
    listed, images = repository.with_one()
    with pytest.raises(ReleaseError, match="its image is not here"):
        repository.adopt(listed)
    images[GOOD].write_bytes(b"another")
    with pytest.raises(ReleaseError, match="expected an image of SHA-256"):
        repository.adopt(listed, images)
    assert repository.publisher.standing().releases == ()
    images[GOOD].write_bytes(IMAGE)
    repository.adopt(listed, images)
    ((release, is_there),) = repository.publisher.standing().releases
    assert (release.path, release.size_bytes, release.custom, is_there) == (GOOD, len(IMAGE), custom(), True)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (custom(13), "is released already, and never changes"),
        (custom(COUNTER, version="1.4.1"), "counter 12: is that of mcu/dock-2/1.4.0.bin"),
    ],
)
def test_neither_a_name_nor_a_counter_means_two_images(repository: Repository, said: Custom, expected: str) -> None:
    repository.release()
    with pytest.raises(ReleaseError, match=expected):
        repository.with_one(b"other", said)
    repository.with_one(b"other", custom(COUNTER, hw="dock-9"))  # counters are of one hardware


def test_a_list_never_goes_back(repository: Repository) -> None:
    earlier, images = repository.with_one(said=custom(13, version="1.4.1"))
    repository.release()
    with pytest.raises(ReleaseError, match=r"expected a version above .* propose it anew"):
        repository.adopt(earlier, images)


def test_what_was_withdrawn_is_released_no_more(repository: Repository) -> None:
    repository.release()
    there = repository.publisher.targets()
    assert there is not None
    repository.adopt(targets.without(there, GOOD, now=repository.now()))
    assert repository.publisher.standing().releases == ()
    with pytest.raises(ReleaseError, match="expected one that is released"):
        targets.without(there, "mcu/dock-2/9.bin", now=NOW)


# what the server signs


@pytest.mark.parametrize(
    ("later", "due"),
    [
        (timedelta(0), set()),
        (timedelta(days=TIMESTAMP_DAYS / 2 - 0.1), set()),
        (timedelta(days=TIMESTAMP_DAYS / 2), {"timestamp"}),
        (timedelta(days=SNAPSHOT_DAYS / 2), {"timestamp", "snapshot"}),
    ],
)
def test_what_the_server_signs_is_renewed_at_half_its_life(
    repository: Repository, clock: Clock, later: timedelta, due: set[str]
) -> None:
    before = repository.publisher.standing().published._asdict()
    clock.now += later
    after = repository.publisher.refresh(SERVER)._asdict()
    assert {role for role in after if after[role] != before[role]} == due


def test_a_server_that_was_restored_signs_above_what_it_lost(repository: Repository, clock: Clock) -> None:
    backup = repository.copied(repository.directory.with_name("backup"))
    clock.later(days=1)
    repository.release()
    lost = repository.publisher.standing().published
    clock.later(days=1)
    restored = backup.publisher.refresh(SERVER, force=True)
    assert restored.timestamp > lost.timestamp
    assert restored.snapshot > lost.snapshot
    backup.release(IMAGE, custom(13, version="1.5.0"))
    assert backup.publisher.standing().published.targets > lost.targets


@pytest.mark.parametrize("last", ["targets", "snapshot", "timestamp"])
def test_a_power_cut_while_it_publishes_leaves_old_or_new(
    repository: Repository, clock: Clock, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    listed, images = repository.with_one()
    for person in PERSONS:
        sign(listed, person)
    before = shutil.copytree(repository.directory, repository.directory.with_name("before"))
    put = repository.store.put

    def cut(role: str, version: int, data: bytes) -> None:
        if role == last:
            raise OSError("the power is gone")
        put(role, version, data)

    with monkeypatch.context() as patched:
        patched.setattr(repository.store, "put", cut)
        with pytest.raises(OSError, match="the power is gone"):
            repository.publisher.adopt_targets(listed.to_bytes(), images, SERVER)
    timestamp = repository.file("timestamp").read_bytes()
    assert timestamp == (before / "metadata/timestamp.json").read_bytes()  # so devices see what was there before
    clock.later(seconds=5)
    repository.publisher.adopt_targets(listed.to_bytes(), images, SERVER)
    assert _shown(repository).targets.keys() == {GOOD}


def _shown(repository: Repository) -> Targets:
    """What a device comes to, from the timestamp on."""
    stamp = read(repository.file("timestamp").read_bytes(), Timestamp).signed.snapshot_meta
    snapshot = repository.store.metadata(f"{stamp.version}.snapshot.json")
    assert snapshot is not None
    stamp.verify_length_and_hashes(snapshot)
    meta = read(snapshot, Snapshot).signed.meta["targets.json"]
    listed = repository.store.metadata(f"{meta.version}.targets.json")
    assert listed is not None
    meta.verify_length_and_hashes(listed)
    return read(listed, Targets).signed


def test_what_persons_have_to_sign_anew_is_told_a_month_before(repository: Repository, clock: Clock) -> None:
    standing = repository.publisher.standing()
    for days, expected in ((334.9, []), (335.1, ["targets"]), (699.9, ["targets"]), (700.1, ["root", "targets"])):
        assert [role for role, _ in ending(standing, clock.now + timedelta(days=days))] == expected


# what comes from elsewhere


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-20],
        lambda _: b"[" * 100_000,
        lambda data: data.replace(b"targets", b"timestamp", 1),
        lambda data: data + b" " * 2_000_000,
    ],
)
def test_what_is_no_list_is_refused(repository: Repository, spoil: Callable[[bytes], bytes]) -> None:
    listed, images = repository.with_one()
    with pytest.raises(ReleaseError, match="metadata: expected"):
        repository.publisher.adopt_targets(spoil(listed.to_bytes()), images, SERVER)


def test_a_root_is_no_list() -> None:
    with pytest.raises(ReleaseError, match="expected targets, got root"):
        read(Metadata(Root()).to_bytes(), Targets)


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("mcu/dock-2/1.4.0.bin", True),
        ("agent/board_1/2.0+a.tar", True),
        ("mcu/dock-2", False),
        ("other/dock-2/1.bin", False),
        ("mcu/../1.bin", False),
        ("mcu/dock-2/../1.bin", False),
        ("mcu/dock-2/.1.bin", False),
        ("mcu/dock-2/1/2.bin", False),
        ("/mcu/dock-2/1.bin", False),
        ("mcu/dock-2/1.bin\n", False),
        ("mcu/Dock/1.bin", False),
    ],
)
def test_a_name_leads_nowhere_else(path: str, good: bool) -> None:
    if good:
        assert target_path(path) == path
    else:
        with pytest.raises(ContractError, match="expected KIND/HARDWARE/NAME"):
            target_path(path)
    assert not is_stored_path(path)  # without the digest


@pytest.mark.parametrize("name", ["0.root.json", "root.json", "1.timestamp.json", "../1.root.json", "1.root.json\n"])
def test_other_names_of_metadata_are_not_there(name: str) -> None:
    assert not is_metadata_name(name)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        {},
        {"hw": "dock-2", "kind": "mcu", "version": "1"},
        {"hw": "Dock", "kind": "mcu", "version": "1", "counter": 1},
        {"hw": "dock-2", "kind": "cpu", "version": "1", "counter": 1},
        {"hw": "dock-2", "kind": "mcu", "version": "1", "counter": 0},
        {"hw": "dock-2", "kind": "mcu", "version": "1", "counter": 1, "allow_downgrade_from": [0]},
    ],
)
def test_what_says_too_little_of_an_image_is_refused(raw: object) -> None:
    with pytest.raises(ContractError, match="custom: "):
        read_custom(raw)


def test_what_a_later_version_adds_is_passed_over() -> None:
    raw = {"hw": "dock-2", "kind": "mcu", "version": "1", "counter": 1, "later": [1]}
    assert read_custom(raw) == Custom("dock-2", ImageKind.MCU, "1", 1)
