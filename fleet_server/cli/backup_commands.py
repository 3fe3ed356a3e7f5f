"""``fieldfleet backup``, ``verify-backup``, ``restore``: on the server's own machine, and without its API."""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import msgspec
import typer
from rich.progress import DownloadColumn

from fleet_server.cli import tables
from fleet_server.cli.bars import bar
from fleet_server.cli.options import AsJson, failed, now_ms, show, write_new
from fleet_server.cli.server import SITE_DEFAULT, SITE_VARIABLE, CommandError, Exit, Json

if TYPE_CHECKING:
    from fleet_server.backup.sealing import Secret
    from fleet_server.backup.taking import Progress

KEPT_MAX: Final = 10_000

Config: TypeAlias = Annotated[
    Path | None,
    typer.Option("--config", help="The server's fleet-server.toml; else that of the site.", show_default=False),
]
Passphrase: TypeAlias = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="A file whose first line seals the site's keys.", show_default=False),
]
WithoutKeys: TypeAlias = Annotated[bool, typer.Option("--without-keys", help="Keys are kept elsewhere, by you.")]
Also: TypeAlias = Annotated[
    list[Path] | None, typer.Option("--also", help="A directory elsewhere that belongs to the site.", file_okay=False)
]
KeyFile: TypeAlias = Annotated[
    Path | None, typer.Option("--key-file", help="What make-backup-key made.", show_default=False)
]
Backup: TypeAlias = Annotated[
    Path, typer.Argument(metavar="BACKUP", help="One backup; or the directory of all: the newest.", file_okay=False)
]


def add_commands(app: typer.Typer) -> None:
    """Mount them on the command line."""
    app.command("backup", epilog="Example: fieldfleet backup /srv/backups --recipient backup-key.pub --keep 30")(
        backup
    )
    app.command("verify-backup", epilog="Example: fieldfleet verify-backup /srv/backups --key-file backup-key")(
        verify_backup
    )
    app.command("restore", epilog="Example: fieldfleet restore /srv/backups --to site --key-file backup-key")(restore)
    app.command("make-backup-key", epilog="Example: fieldfleet make-backup-key backup-key")(make_backup_key)


def backup(
    to: Annotated[Path, typer.Argument(metavar="DIR", help="Where backups are; made if need be.", file_okay=False)],
    config: Config = None,
    site: Annotated[Path | None, typer.Option("--site", help="The site's directory.", show_default=False)] = None,
    passphrase_file: Passphrase = None,
    recipient: Annotated[
        Path | None,
        typer.Option("--recipient", help="Seal the keys to this public key (make-backup-key).", show_default=False),
    ] = None,
    without_keys: WithoutKeys = False,
    evidence: Annotated[
        str, typer.Option(help="copy: what is not there yet; reference: named only, being kept elsewhere.")
    ] = "copy",
    also: Also = None,
    keep: Annotated[int, typer.Option(min=0, max=KEPT_MAX, help="Only the newest so many stay; 0: all.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Copy the whole site while it runs: stores, operators' data, custody and audit log, keys, files of devices.

    Exit codes: 0 done, 1 it was not made, or the site itself lacks files that its index names, 2 wrong usage.
    """
    from fleet_server.backup.manifest import Keys, Mode  # noqa: PLC0415 - much that other commands do not need
    from fleet_server.backup.taking import Order, take  # noqa: PLC0415
    from fleet_server.config import load  # noqa: PLC0415

    with _told():
        if sum((passphrase_file is not None, recipient is not None, without_keys)) != 1:
            raise CommandError(Exit.USAGE, "expected one of --passphrase-file, --recipient and --without-keys")
        if evidence not in set(Mode):
            raise CommandError(Exit.USAGE, f"--evidence: expected {' or '.join(Mode)}, got {evidence!r}")
        file = config or _site_config(site)
        kind = Keys.PASSPHRASE if passphrase_file else Keys.RECIPIENT if recipient else Keys.LEFT_OUT
        order = Order(
            root=to.absolute(),
            config_file=file,
            config=load(file),
            keys=kind,
            seal=_sealing(passphrase_file, recipient),
            mode=Mode(evidence),
            also=tuple(also or ()),
            keep=keep,
        )
        with _shown() as progress:
            taken = take(order, now_ms=now_ms, progress=progress)
    made = taken.manifest
    lacking = len(made.evidence.missing) + len(made.evidence.damaged)
    document: Json = {
        "backup": str(taken.directory),
        "copied": taken.copied,
        "removed": [*taken.removed],
        "dropped": taken.dropped,
        "manifest": msgspec.to_builtins(made),
    }
    lines = [
        f"{taken.directory}: {len(made.files)} files, {sum(each.size for each in made.files)} bytes",
        f"evidence: {made.evidence.count} of {made.evidence.size} bytes ({made.evidence.mode}), {taken.copied} new",
        *(f"not in it: {each}" for each in made.left_out),
        *(f"removed: {each}" for each in taken.removed),
    ]
    if lacking:
        lines.append(f"LACKING AT THE SITE: {lacking} contents, named by verify-backup")
    show(document, tables.plain("\n".join(lines)), as_json=as_json)
    if lacking:
        raise typer.Exit(Exit.PROBLEM)


def verify_backup(
    backup: Backup, passphrase_file: Passphrase = None, key_file: KeyFile = None, as_json: AsJson = False
) -> None:
    """Read every byte of a backup again, and say what is not as it was written.

    Exit codes: 0 whole, 1 it is not, or it names what the site lacked, 2 wrong usage.
    """
    from fleet_server.backup.checking import look  # noqa: PLC0415

    with _told(), _shown() as progress:
        directory = _chosen(backup)
        looked = look(directory, progress, opened=_opening(passphrase_file, key_file))
    made = looked.manifest
    when = datetime.fromtimestamp(made.begun_ms / 1000, UTC).isoformat(timespec="seconds")
    opened = passphrase_file is not None or key_file is not None
    keys = "opened" if opened and not looked.faults else f"{made.keys}, not opened"
    lines = [
        f"{directory}: site {made.site_id[:8]} at {when}, by fieldfleet {made.program}",
        f"{len(made.files)} files, {looked.contents} of {made.evidence.count} contents read; keys: {keys}",
        *(f"not in it: {each}" for each in made.left_out),
        *looked.named,
        *looked.faults,
        "damaged" if looked.faults else "whole",
    ]
    document: Json = {
        "backup": str(directory),
        "whole": not looked.faults,
        "faults": [*looked.faults],
        "lacking": [*looked.named],
        "manifest": msgspec.to_builtins(made),
    }
    show(document, tables.plain("\n".join(lines)), as_json=as_json)
    if looked.faults or looked.named:
        raise typer.Exit(Exit.PROBLEM)


def restore(
    backup: Backup,
    to: Annotated[Path, typer.Option("--to", help="The site's directory; nothing there is overwritten.")],
    passphrase_file: Passphrase = None,
    key_file: KeyFile = None,
    without_keys: WithoutKeys = False,
    also: Also = None,
    as_json: AsJson = False,
) -> None:
    """Put a backup in the place of a site that is lost, and begin a new store epoch: devices offer what it lacks.

    It is read again first. As root, what is put back belongs to the owner of --to. Exit codes: 0 done, 1 it was not
    done, or something has to be put there yet before the server starts, 2 wrong usage.
    """
    from fleet_server.backup.checking import read_manifest  # noqa: PLC0415
    from fleet_server.backup.manifest import KEYS  # noqa: PLC0415
    from fleet_server.backup.restoring import Wanted  # noqa: PLC0415
    from fleet_server.backup.restoring import restore as put_back  # noqa: PLC0415

    with _told(), _shown() as progress:
        directory = _chosen(backup)
        opened = _opening(passphrase_file, key_file)
        if read_manifest(directory).entry(KEYS) is not None and (opened is None) != without_keys:
            raise CommandError(Exit.USAGE, "expected one of --passphrase-file, --key-file and --without-keys")
        found = put_back(
            Wanted(directory, to.absolute(), opened, tuple(also or ())), now_ms=now_ms, progress=progress
        )
    lines = [
        f"restored to {to}: store epoch {found.store_epoch}, audit log {found.audit_log}",
        f"{found.files} files, {found.contents} contents of evidence",
        *(f"there already, and kept: {each}" for each in found.kept),
        *(f"not put back, it belongs elsewhere: {each}" for each in found.not_put),
        *(f"MISSING, of evidence: {each}" for each in found.missing),
        *(f"before the server starts: {each}" for each in found.faults),
        "devices that enrolled or renewed since the backup: renew_unknown = true in [device_ca], for a month",
        "time series: fleet-server rebuild --from, once the server runs",
    ]
    document: Json = {
        "config": str(found.config_file),
        "store_epoch": found.store_epoch,
        "audit_log": found.audit_log,
        "files": found.files,
        "contents": found.contents,
        "kept": [*found.kept],
        "not_put": [*found.not_put],
        "missing": [*found.missing],
        "faults": [*found.faults],
    }
    show(document, tables.plain("\n".join(lines)), as_json=as_json)
    if found.missing or found.faults:
        raise typer.Exit(Exit.PROBLEM)


def make_backup_key(
    key: Annotated[Path, typer.Argument(metavar="KEY", help="A file that is not there yet; KEY.pub beside it.")],
) -> None:
    """Make a pair of keys for backups: KEY.pub is for the server, KEY is kept where no backup is."""
    from fleet_server.backup.sealing import new_pair  # noqa: PLC0415

    with _told():
        private, public = new_pair()
        os.umask(0o077)
        write_new(key, private)
        write_new(key.with_name(key.name + ".pub"), public)
    typer.echo(f"made {key} and {key}.pub; keep {key} offline, and twice: without it no key of a site comes back")


def _site_config(site: Path | None) -> Path:
    return (site or Path(os.environ.get(SITE_VARIABLE) or SITE_DEFAULT)) / "server" / "fleet-server.toml"


def _chosen(directory: Path) -> Path:
    """A backup, or the newest of those in it."""
    from fleet_server.backup.manifest import MANIFEST  # noqa: PLC0415
    from fleet_server.backup.taking import backups_in  # noqa: PLC0415

    if (directory / MANIFEST).exists() or not directory.is_dir():
        return directory.absolute()
    names = backups_in(directory)
    if not names:
        raise CommandError(Exit.USAGE, f"{directory}: expected a backup, or a directory with some")
    return (directory / names[-1]).absolute()


def _sealing(
    passphrase_file: Path | None, recipient: Path | None
) -> "Callable[[Mapping[str, Secret]], bytes] | None":
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # noqa: PLC0415

    from fleet_server.backup import sealing  # noqa: PLC0415
    from fleet_server.backup.taking import random_salt  # noqa: PLC0415

    if passphrase_file is not None:
        passphrase = _first_line(passphrase_file)
        return lambda secrets: sealing.seal_to_passphrase(secrets, passphrase, salt=random_salt())
    if recipient is not None:
        public = recipient.read_bytes()
        return lambda secrets: sealing.seal_to_recipient(secrets, public, ephemeral=X25519PrivateKey.generate())
    return None


def _opening(passphrase_file: Path | None, key_file: Path | None) -> "Callable[[bytes], Mapping[str, Secret]] | None":
    from fleet_server.backup import sealing  # noqa: PLC0415

    if passphrase_file is not None and key_file is not None:
        raise CommandError(Exit.USAGE, "expected one of --passphrase-file and --key-file")
    if passphrase_file is not None:
        passphrase = _first_line(passphrase_file)
        # once: it is asked for when the backup is looked at, and when it is put back, and takes its time
        return functools.cache(lambda sealed: sealing.open_with_passphrase(sealed, passphrase))
    if key_file is not None:
        private = key_file.read_bytes()
        return lambda sealed: sealing.open_with_key(sealed, private)
    return None


def _first_line(file: Path) -> str:
    if file.stat().st_mode & 0o077:
        raise CommandError(Exit.USAGE, f"{file}: expected a file that only its owner may read (chmod 600)")
    return file.read_text(encoding="utf-8").partition("\n")[0].strip()


@contextmanager
def _told() -> Iterator[None]:
    """Errors as one message and an exit code."""
    from fleet_server.backup.manifest import BackupError  # noqa: PLC0415
    from fleet_server.config import ConfigError  # noqa: PLC0415

    try:
        yield
    except CommandError as error:
        raise failed(error) from error
    except (ConfigError, UnicodeDecodeError) as error:
        raise failed(CommandError(Exit.USAGE, str(error))) from error
    except BackupError as error:
        raise failed(CommandError(Exit.PROBLEM, str(error))) from error
    except OSError as error:
        raise failed(CommandError(Exit.USAGE, f"{error.filename}: {error.strerror}")) from error


@contextmanager
def _shown() -> "Iterator[Progress]":
    with bar(DownloadColumn()) as progress:
        task = progress.add_task("", total=None)

        def see(what: str, done: int, whole: int) -> None:
            progress.update(task, description=what, completed=done, total=whole)

        yield see
