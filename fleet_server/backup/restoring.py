"""Puts a backup in the place of a site that is lost.

Nothing that is there is overwritten: what is there already must be the same, but for the list of revoked devices, of
which the newer one stays. The configuration comes last, so that a restore that ended half way starts no server.

A new store epoch begins, so that devices offer again what the backup lacks; a new audit log begins, because the old
one went on after the backup and its witnesses saw that; the signer counts on above what it can have used.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from broker_config.text import shown
from fleet_server.access.auditor import BEGIN, own_fact
from fleet_server.access.signing import RESERVED
from fleet_server.adapters.files import PRIVATE_FILE, make_private_directory, write_durably
from fleet_server.adapters.incoming_files import COPY_BYTES, ContentDirectory, read_again
from fleet_server.adapters.revocation_list import newest_of
from fleet_server.adapters.signer_socket import keep_counter, read_counter
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.audit import SqlAudit
from fleet_server.adapters.sqlite_backup import copy_back, restore_backup
from fleet_server.backup import manifest as form
from fleet_server.backup import postgres
from fleet_server.backup.checking import look
from fleet_server.backup.manifest import BackupError, Manifest, Mode
from fleet_server.backup.sealing import Secret
from fleet_server.backup.site_files import named, target_of
from fleet_server.backup.taking import Progress, contents_of, uploads_file
from fleet_server.config import Config, ConfigError, load, parse
from fleet_server.evidence.content import ContentError
from fleet_server.parts import DATABASE_FILE, STORE_FILE, PartError, database_of, operators_url
from fleet_server.telemetry.store import StoreError

RESTORED: Final = "restored from a backup"
PUBLIC_FILE: Final = 0o644


@dataclass(frozen=True, slots=True)
class Wanted:
    """``base``: the site's directory. ``opened``: opens the sealed keys; None: they are there already. ``also``:
    directories elsewhere in which files may be put back, too.
    """

    directory: Path
    base: Path
    opened: Callable[[bytes], Mapping[str, Secret]] | None
    also: Sequence[Path] = ()


@dataclass(slots=True)
class PutBack:
    """``kept``: files that were there already; ``not_put``: those that belong to other directories; ``missing``:
    contents that the backup names and that are nowhere; ``faults``: what keeps the server from starting.
    """

    manifest: Manifest
    config_file: Path
    store_epoch: int = 0
    audit_log: int = 0
    files: int = 0
    contents: int = 0
    kept: list[str] = field(default_factory=list)
    not_put: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _File:
    to: Path
    data: bytes
    mode: int


def restore(wanted: Wanted, *, now_ms: Callable[[], int], progress: Progress) -> PutBack:
    """Look at the backup, then put it back.

    Raises:
        BackupError: it is damaged, its keys do not open, or something else is where it belongs; once it has begun,
            what was put back stays, and the configuration is not among it.
    """
    looked = look(wanted.directory, progress, opened=wanted.opened)
    if looked.faults:
        raise BackupError("the backup is damaged, and nothing was put back:\n" + "\n".join(looked.faults[:20]))
    manifest = looked.manifest
    result = PutBack(manifest, wanted.base / manifest.config)
    try:
        config = _config(wanted, manifest)
        files = _files(wanted, manifest, config, result)
        _refuse_others(files, config)
        # the longest first: what is there already of it is not copied again
        _contents(wanted, config, result, progress)
        progress("stores", 0, 1)
        result.store_epoch, result.audit_log = _stores(wanted, manifest, config, files, now_ms)
        _count_on(config, manifest, now_ms())
        progress("configuration and keys", 0, 1)
        last = [each for each in files if each.to == result.config_file]
        for each in (*(each for each in files if each not in last), *last):
            _write(each)
            result.files += 1
        _give_to_owner(result.config_file.parent, config)
        result.faults = _faults(result.config_file)
    except (StoreError, PartError, ContentError, ConfigError, database.DatabaseError) as error:
        raise BackupError(str(error)) from error
    except OSError as error:
        raise BackupError(f"{error.filename or wanted.base}: {error.strerror}") from error
    return result


def _config(wanted: Wanted, manifest: Manifest) -> Config:
    entry = manifest.entry(f"{form.SITE}/{manifest.config}")
    if entry is None:
        raise BackupError(f"{manifest.config}: the configuration is not in the backup")
    text = (wanted.directory / entry.name).read_text(encoding="utf-8")
    base = (wanted.base / manifest.config).absolute().parent
    return parse(text, base=base, source=manifest.config)


def _files(wanted: Wanted, manifest: Manifest, config: Config, result: PutBack) -> list[_File]:
    """What is to be written: of files that are there already only what counts more than they do."""
    secrets: dict[str, Secret] = {}
    if wanted.opened is not None and manifest.entry(form.KEYS) is not None:
        secrets = dict(wanted.opened((wanted.directory / form.KEYS).read_bytes()))
    found: dict[str, tuple[bytes, int]] = {name: (each.data, each.mode & 0o600) for name, each in secrets.items()}
    for entry in manifest.files:
        if entry.name.startswith((f"{form.SITE}/", f"{form.OUTSIDE}/")):
            found[entry.name] = (wanted.directory / entry.name).read_bytes(), PUBLIC_FILE
    meant = {Path(os.path.normpath(each)) for each in named(config)}
    crl_file = None if config.device_ca is None else Path(os.path.normpath(config.device_ca.crl_file))
    files, others = [], []
    for name, (data, mode) in sorted(found.items()):
        if not form.is_below(name):
            raise BackupError(f"expected a path below the backup, got {shown(name)!r}")
        to = Path(os.path.normpath(target_of(name, wanted.base.absolute())))
        if (
            name.startswith(f"{form.OUTSIDE}/")
            and to not in meant
            and not any(each.absolute() in to.parents for each in wanted.also)
        ):
            result.not_put.append(str(to))
        elif not to.exists():
            files.append(_File(to, data, mode))
        elif to.read_bytes() == data:
            result.kept.append(str(to))
        elif to == crl_file:
            _take_newer_list(to, data, mode, files, result)
        else:
            others.append(str(to))
    if others:
        raise BackupError("expected nothing else there, and never overwrite it: " + ", ".join(others[:20]))
    return files


def _take_newer_list(to: Path, data: bytes, mode: int, files: list[_File], result: PutBack) -> None:
    """Who was put out since the backup stays out, if the broker still has the list."""
    there, ours = newest_of(to.read_bytes()), newest_of(data)
    if ours is not None and (there is None or ours > there):
        files.append(_File(to, data, mode))
    else:
        result.kept.append(str(to))


def _refuse_others(files: Sequence[_File], config: Config) -> None:
    names = [STORE_FILE, *([] if config.database.url else [DATABASE_FILE])]
    there = [config.state_dir / f"{name}{end}" for name in names for end in ("", "-wal", "-shm")]
    if found := [str(each) for each in there if each.exists()]:
        raise BackupError("expected no store there; stop the server and move it away: " + ", ".join(found))
    file = config.database.password_file if config.database.url else None
    if file is not None and not file.exists() and all(each.to != Path(os.path.normpath(file)) for each in files):
        raise BackupError(f"{file}: the database's password is not in the backup; put it there first")


def _faults(config_file: Path) -> tuple[str, ...]:
    """What the server would say of its configuration."""
    try:
        load(config_file)
    except ConfigError as error:
        return error.faults
    return ()


def _contents(wanted: Wanted, config: Config, result: PutBack, progress: Progress) -> None:
    if config.evidence is None:
        return
    evidence, done = result.manifest.evidence, 0
    _make_directory(config.evidence.directory)
    pool, store = ContentDirectory(wanted.directory.parent, "backup"), ContentDirectory(config.evidence.directory)
    for each in contents_of(wanted.directory):
        if store.exists(each.sha256) and read_again(store.path(each.sha256), COPY_BYTES).sha256 == each.sha256:
            result.contents += 1
        elif evidence.mode is Mode.COPY:
            with pool.open(each.sha256) as source:
                seen = store.copy(source, each.sha256, COPY_BYTES)
            if seen.sha256 != each.sha256:
                raise BackupError(f"evidence {each.sha256}: expected that hash, got {seen.sha256}")
            result.contents += 1
        else:
            result.missing.append(each.sha256)
        done += each.size
        progress("evidence", done, evidence.size)
    result.missing += evidence.missing


def _stores(
    wanted: Wanted, manifest: Manifest, config: Config, files: Sequence[_File], now_ms: Callable[[], int]
) -> tuple[int, int]:
    """The new store epoch, and the number of the new audit log."""
    _make_directory(config.state_dir)
    # what the database is opened with is among what comes last
    for each in files:
        if config.database.password_file is not None and each.to == config.database.password_file:
            _write(each)
    engine_file = config.state_dir / DATABASE_FILE
    if manifest.entry(form.OPERATORS_DUMP) is not None:
        if not config.database.url:
            raise BackupError("operators' data was in PostgreSQL, and the configuration names none")
        postgres.put_back(operators_url(config), wanted.directory / form.OPERATORS_DUMP)
    else:
        copy_back(wanted.directory / form.OPERATORS, engine_file)
        engine_file.chmod(PRIVATE_FILE)
    uploads = uploads_file(config)
    # one that is there is of a disk that was not lost, and knows more
    if manifest.entry(form.UPLOADS) is not None and uploads is not None and not uploads.exists():
        copy_back(wanted.directory / form.UPLOADS, uploads)
        uploads.chmod(PRIVATE_FILE)
    engine, _ = database_of(config)
    try:
        log = SqlAudit(engine).begin(own_fact(BEGIN, RESTORED, at_ms=now_ms())).log
    finally:
        engine.dispose()
    epoch = restore_backup(wanted.directory / form.TELEMETRY, config.state_dir / STORE_FILE, now_ms=now_ms())
    (config.state_dir / STORE_FILE).chmod(PRIVATE_FILE)
    return epoch, log


def _count_on(config: Config, manifest: Manifest, now_ms: int) -> None:
    """Above all that the signer can have used: it reserves so many ahead, and else follows the clock."""
    file = config.signer.counter_file
    if file is None or manifest.signer_counter is None:
        return
    keep_counter(file, max(manifest.signer_counter + RESERVED, read_counter(file), now_ms))


def _write(file: _File) -> None:
    """What root writes belongs to whom its directory belongs to, or the nearest above it that was there."""
    _make_directory(file.to.parent)
    write_durably(file.to, file.data, mode=file.mode)
    owner = file.to.parent.stat()
    if os.geteuid() == 0:
        os.chown(file.to, owner.st_uid, owner.st_gid)


def _make_directory(path: Path) -> None:
    """Each that is missing belongs to whom the one above it belongs to."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    make_private_directory(path)
    for each in reversed(missing):
        owner = each.parent.stat()
        if os.geteuid() == 0:
            os.chown(each, owner.st_uid, owner.st_gid)


def _give_to_owner(base: Path, config: Config) -> None:
    """Stores that root puts back belong to whom the configuration's directory belongs to."""
    owner = base.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    places = [config.state_dir, *([config.evidence.directory] if config.evidence else [])]
    for place in places:
        for at, directories, files in os.walk(place):
            for name in (at, *(f"{at}/{each}" for each in (*directories, *files))):
                os.chown(name, owner.st_uid, owner.st_gid, follow_symlinks=False)
