"""Makes one backup of a site, whose server may run.

The order is what makes it one: each store is copied at one moment, and after every store that names something in it.
Uploads under way name places in the custody log; the custody log names contents and the devices' journals; all of it
is signed by keys. So: uploads, operators' data, what devices sent, keys, contents. What came in between is in the
later ones only: the log does not know it, and its device offers it again.
"""

import fcntl
import hashlib
import os
import secrets as randomness
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from broker_config.text import shown
from fleet_server.access.signing import SignerError
from fleet_server.adapters.files import (
    PRIVATE_DIRECTORY,
    PRIVATE_FILE,
    make_private_directory,
    sync_directory,
    write_durably,
)
from fleet_server.adapters.incoming_files import COPY_BYTES, ContentDirectory
from fleet_server.adapters.signer_socket import read_counter
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.kept_contents import kept_contents
from fleet_server.adapters.sqlite_backup import backup as copied
from fleet_server.backup import manifest as form
from fleet_server.backup import postgres, sealing
from fleet_server.backup.manifest import BackupError, Content, Contents, Entry, Keys, Manifest, Mode
from fleet_server.backup.sealing import Secret
from fleet_server.backup.site_files import base_of, gather, is_secret, mode_of
from fleet_server.config import Config
from fleet_server.evidence.content import ContentError, MissingContentError
from fleet_server.parts import DATABASE_FILE, STORE_FILE, operators_url
from fleet_server.telemetry.store import StoreError
from fleet_server.uploads import UPLOADS_FILE

LOCK_FILE: Final = ".lock"
PART: Final = ".part"

Seal = Callable[[Mapping[str, Secret]], bytes]
Progress = Callable[[str, int, int], None]
"""What is done now; how many bytes of how many."""


@dataclass(frozen=True, slots=True)
class Order:
    """``seal`` None: secrets are left out. ``keep``: of how many backups the newest stay; 0: all."""

    root: Path
    config_file: Path
    config: Config
    keys: Keys
    seal: Seal | None
    mode: Mode = Mode.COPY
    also: Sequence[Path] = ()
    keep: int = 0


@dataclass(slots=True)
class Taken:
    """``copied``: contents that were not there from an earlier backup; ``removed``: backups beyond ``keep``."""

    directory: Path
    manifest: Manifest
    copied: int = 0
    removed: list[str] = field(default_factory=list)
    dropped: int = 0


def take(order: Order, *, now_ms: Callable[[], int], progress: Progress) -> Taken:
    """It appears whole and durable, or not at all.

    Raises:
        BackupError: it cannot be made; contents that were copied stay, and are not copied again.
    """
    try:
        make_private_directory(order.root)
        with _alone(order.root):
            return _take(order, now_ms, progress)
    except (StoreError, database.DatabaseError, SignerError, ContentError, sqlite3.Error) as error:
        raise BackupError(shown(error)) from error
    except OSError as error:
        raise BackupError(f"{error.filename or order.root}: {error.strerror}") from error


def _take(order: Order, now_ms: Callable[[], int], progress: Progress) -> Taken:
    begun_ms = now_ms()
    name = datetime.fromtimestamp(begun_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    directory, partial = order.root / name, order.root / f".{name}{PART}"
    if directory.exists():
        raise BackupError(f"{directory}: is there already; one backup a second")
    for left in order.root.glob(f".*{PART}"):
        shutil.rmtree(left)
    partial.mkdir(mode=PRIVATE_DIRECTORY)
    base = base_of(order.config_file)
    kept = _stores(order, partial, progress)
    left_out = _site(order, base, partial, progress)
    evidence, count = _contents(order, partial, kept, progress)
    files = tuple(_entries(partial))
    made = Manifest(
        version=form.VERSION,
        program=version("fieldfleet"),
        site_id=order.config.site_id,
        begun_ms=begun_ms,
        ended_ms=now_ms(),
        base=str(base),
        config=str(order.config_file.resolve().relative_to(base)),
        store_epoch=_store_epoch(partial / form.TELEMETRY),
        keys=order.keys,
        evidence=evidence,
        files=files,
        signer_counter=_counter(order.config),
        left_out=tuple(left_out),
    )
    write_durably(partial / form.MANIFEST, form.encode(made))
    for each in sorted(path for path in partial.rglob("*") if path.is_dir()):
        sync_directory(each)
    partial.rename(directory)
    sync_directory(order.root)
    taken = Taken(directory, made, count)
    if order.keep:
        taken.removed, taken.dropped = rotate(order.root, order.keep)
    return taken


def _stores(order: Order, partial: Path, progress: Progress) -> frozenset[str]:
    """All of them; what the index names of contents."""
    state = order.config.state_dir
    (partial / "stores").mkdir(mode=PRIVATE_DIRECTORY)
    uploads = uploads_file(order.config)
    if uploads is not None and uploads.is_file():
        progress("uploads", 0, 1)
        _private_copy(uploads, partial / form.UPLOADS)
    # not migrated: the server that runs may be an older one
    engine = database.connect(operators_url(order.config))
    try:
        progress("operators' data", 0, 1)
        if order.config.database.url:
            postgres.dump(engine.url, partial / form.OPERATORS_DUMP)
        else:
            _private_copy(state / DATABASE_FILE, partial / form.OPERATORS)
        kept = kept_contents(engine)
    finally:
        engine.dispose()
    progress("what devices sent", 0, 1)
    _private_copy(state / STORE_FILE, partial / form.TELEMETRY)
    return kept


def uploads_file(config: Config) -> Path | None:
    """Where it is kept what is under way; None: this server takes no files."""
    return None if config.evidence is None else config.evidence.directory / UPLOADS_FILE


def _private_copy(source: Path, to: Path) -> None:
    if not source.is_file():
        raise BackupError(f"{source}: no such file; has the server run?")
    copied(source, to)
    to.chmod(PRIVATE_FILE)


def _site(order: Order, base: Path, partial: Path, progress: Progress) -> list[str]:
    """What is not in it, in words."""
    progress("configuration and keys", 0, 1)
    found = gather(base, order.config, also=order.also, but=(order.root.resolve(),))
    secrets: dict[str, Secret] = {}
    left_out = list(found.left_out)
    for name, path in sorted(found.files.items()):
        if not is_secret(path):
            to = partial / name
            make_private_directory(to.parent)
            write_durably(to, path.read_bytes())
        elif order.seal is not None:
            secrets[name] = Secret(mode_of(path), path.read_bytes())
        else:
            left_out.append(f"{path}: a secret; without a copy of it elsewhere this site cannot be put back")
    if order.seal is not None:
        write_durably(partial / form.KEYS, order.seal(secrets))
    key_file = order.config.signer.key_file
    if key_file is not None and all(path.name != key_file.name for path in found.files.values()):
        left_out.append("the signer's key: it is not beside the server; keep it where it is, with its counter")
    for table, held in (("device_ca", order.config.device_ca), ("signer", order.config.signer)):
        if held is not None and held.key_uri is not None:
            left_out.append(f"[{table}] the key is in a token: it is backed up by the token's own means")
    if order.config.influx is not None:
        left_out.append("time series: made again from what devices sent, by fleet-server rebuild --from")
    return left_out


def _contents(order: Order, partial: Path, kept: frozenset[str], progress: Progress) -> tuple[Contents, int]:
    table = order.config.evidence
    if table is None:
        write_durably(partial / form.EVIDENCE_LIST, b"")
        return Contents(order.mode, 0, 0), 0
    source, pool = ContentDirectory(table.directory), ContentDirectory(order.root, "backup")
    names = sorted(filter(form.is_sha256, source.names()))
    sizes = {name: size for name in names if (size := _size(source, name)) is not None}
    whole, done, count = sum(sizes.values()), 0, 0
    listed, damaged = [], []
    for name, size in sizes.items():
        if order.mode is Mode.REFERENCE or pool.exists(name):
            listed.append(Content(name, size))
        else:
            match _copied(source, pool, name):
                case True:
                    listed.append(Content(name, size))
                    count += 1
                case False:
                    damaged.append(name)
                case None:  # lawfully deleted meanwhile, or not: the index is asked below
                    pass
        done += size
        progress("evidence", done, whole)
    here = {each.sha256 for each in listed}
    missing = sorted(kept - here - set(damaged))
    if missing:  # what was deleted since is not missing
        engine = database.connect(operators_url(order.config))
        try:
            now_kept = kept_contents(engine)
        finally:
            engine.dispose()
        missing = [each for each in missing if each in now_kept]
    write_durably(partial / form.EVIDENCE_LIST, form.encode_contents(listed))
    size = sum(each.size for each in listed)
    return (
        Contents(order.mode, len(listed), size, tuple(missing[: form.NAMED_MAX]), tuple(damaged[: form.NAMED_MAX])),
        count,
    )


def _size(source: ContentDirectory, name: str) -> int | None:
    """None: it was deleted meanwhile."""
    try:
        return source.path(name).stat().st_size
    except FileNotFoundError:
        return None


def _copied(source: ContentDirectory, pool: ContentDirectory, name: str) -> bool | None:
    """Whether it is there now, read again from the disk; False: it is not what its name says; None: it is gone."""
    try:
        with source.open(name) as opened:
            return pool.copy(opened, name, COPY_BYTES).sha256 == name
    except MissingContentError:
        return None


def _entries(partial: Path) -> Iterator[Entry]:
    for path in sorted(path for path in partial.rglob("*") if path.is_file()):
        yield entry_of(path, str(path.relative_to(partial)))


def entry_of(path: Path, name: str) -> Entry:
    """What a manifest says of it. Raises OSError."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Entry(name, sha256, os.fstat(file.fileno()).st_size)


def _store_epoch(path: Path) -> int:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as opened:
        (epoch,) = opened.execute("SELECT value FROM meta WHERE name = 'store_epoch'").fetchone()
    return int(epoch)


def _counter(config: Config) -> int | None:
    file = config.signer.counter_file
    return read_counter(file) if file is not None and file.is_file() else None


def rotate(root: Path, keep: int) -> tuple[list[str], int]:
    """Remove backups beyond the newest *keep*, and contents that none of the rest names: which, and how many.

    Raises OSError, BackupError.
    """
    names = backups_in(root)
    removed = form.to_remove(names, keep)
    for name in removed:
        gone = root / f".{name}{PART}"
        (root / name).rename(gone)  # so that no half of one is ever taken for one
        shutil.rmtree(gone)
    named: set[str] = set()
    for name in names:
        if name not in removed:
            named |= {each.sha256 for each in contents_of(root / name)}
    pool, dropped = ContentDirectory(root, "backup"), 0
    for sha256 in list(pool.names()):
        if form.is_sha256(sha256) and sha256 not in named:
            pool.remove(sha256)
            dropped += 1
    return removed, dropped


def backups_in(root: Path) -> list[str]:
    """Names of whole backups, oldest first. Raises OSError."""
    return sorted(
        each.name for each in root.iterdir() if form.is_name(each.name) and (each / form.MANIFEST).is_file()
    )


def contents_of(directory: Path) -> list[Content]:
    """What a backup names of evidence. Raises OSError, BackupError."""
    with (directory / form.EVIDENCE_LIST).open("rb") as lines:
        return list(form.read_contents(lines))


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Raises BackupError: another backup is being made there."""
    with (root / LOCK_FILE).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BackupError(f"{root}: another backup is being made there") from error
        yield


def random_salt() -> bytes:
    """For a passphrase."""
    return randomness.token_bytes(sealing.SALT_BYTES)
