"""Looks whether a backup is whole, without putting it back: every file and every content is read again."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from broker_config.text import shown
from fleet_server.adapters.incoming_files import COPY_BYTES, ContentDirectory, read_again
from fleet_server.backup import manifest as form
from fleet_server.backup import postgres
from fleet_server.backup.manifest import BackupError, Manifest, Mode
from fleet_server.backup.taking import Progress, contents_of, entry_of

STORES = (form.UPLOADS, form.OPERATORS, form.TELEMETRY)


@dataclass(slots=True)
class Looked:
    """``faults``: what is wrong, a line each; none: it is whole. ``named``: what it says itself was not there."""

    manifest: Manifest
    contents: int = 0
    faults: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)


def read_manifest(directory: Path) -> Manifest:
    """Raises BackupError: it is no backup."""
    try:
        with (directory / form.MANIFEST).open("rb") as file:
            return form.decode(file.read(form.MANIFEST_BYTES_MAX + 1))
    except OSError as error:
        raise BackupError(f"{directory} is no backup: {form.MANIFEST}: {error.strerror}") from error


def look(directory: Path, progress: Progress, *, opened: Callable[[bytes], object] | None = None) -> Looked:
    """*opened*: opens the sealed keys, or raises BackupError; None: nobody can here.

    Raises:
        BackupError: it is no backup.
    """
    looked = Looked(read_manifest(directory))
    looked.faults += _files(directory, looked.manifest, progress)
    if not looked.faults:  # what is not as it was written need not be read further
        looked.faults += _stores(directory, looked.manifest)
        looked.faults += _keys(directory, looked.manifest, opened)
        looked.faults += _contents(directory, looked, progress)
    evidence = looked.manifest.evidence
    looked.named += [f"{sha256}: the site had it not, though its index names it" for sha256 in evidence.missing]
    looked.named += [f"{sha256}: the site had something else under this name" for sha256 in evidence.damaged]
    return looked


def _files(directory: Path, manifest: Manifest, progress: Progress) -> Iterator[str]:
    whole, done = sum(each.size for each in manifest.files), 0
    for each in manifest.files:
        try:
            found = entry_of(directory / each.name, each.name)
        except OSError as error:
            yield f"{each.name}: {error.strerror}"
            continue
        if found != each:
            yield f"{each.name}: expected {each.size} bytes, {each.sha256}, got {found.size} bytes, {found.sha256}"
        done += each.size
        progress("files", done, whole)
    here = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    for name in sorted(here - {each.name for each in manifest.files} - {form.MANIFEST}):
        yield f"{shown(name)}: nobody wrote it"


def _stores(directory: Path, manifest: Manifest) -> Iterator[str]:
    for name in (form.TELEMETRY, *((form.OPERATORS,) if manifest.entry(form.OPERATORS_DUMP) is None else ())):
        if manifest.entry(name) is None:
            yield f"{name}: it is not in the backup"
    for name in STORES:
        if manifest.entry(name) is None:
            continue
        try:
            uri = f"{(directory / name).absolute().as_uri()}?mode=ro&immutable=1"
            with closing(sqlite3.connect(uri, uri=True)) as database:
                (verdict,) = database.execute("PRAGMA integrity_check(1)").fetchone()
        except sqlite3.Error as error:
            verdict = str(error)
        if verdict != "ok":
            yield f"{name}: expected a sound database, got {verdict}"
    if manifest.entry(form.OPERATORS_DUMP) is not None and not postgres.is_dump(directory / form.OPERATORS_DUMP):
        yield f"{form.OPERATORS_DUMP}: expected what pg_dump wrote"


def _keys(directory: Path, manifest: Manifest, opened: Callable[[bytes], object] | None) -> Iterator[str]:
    if manifest.entry(form.KEYS) is None:
        if manifest.keys is not form.Keys.LEFT_OUT:
            yield f"{form.KEYS}: it is not in the backup"
    elif opened is not None:
        try:
            opened((directory / form.KEYS).read_bytes())
        except BackupError as error:
            yield str(error)


def _contents(directory: Path, looked: Looked, progress: Progress) -> Iterator[str]:
    evidence, done = looked.manifest.evidence, 0
    listed = contents_of(directory)
    if (len(listed), sum(each.size for each in listed)) != (evidence.count, evidence.size):
        yield f"{form.EVIDENCE_LIST}: expected {evidence.count} contents of {evidence.size} bytes, got another number"
    if evidence.mode is Mode.REFERENCE:
        return
    pool = ContentDirectory(directory.parent, "backup")
    for each in listed:
        looked.contents += 1
        try:
            seen = read_again(pool.path(each.sha256), COPY_BYTES)
        except OSError as error:
            yield f"evidence {each.sha256}: {error.strerror}"
            continue
        if (seen.sha256, seen.size) != (each.sha256, each.size):
            yield f"evidence {each.sha256}: expected {each.size} bytes of that hash, got {seen.size}, {seen.sha256}"
        done += each.size
        progress("evidence", done, evidence.size)
