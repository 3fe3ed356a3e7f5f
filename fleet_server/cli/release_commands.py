"""``fleet-server releases``: who may release, what is released, and what the server signs of it by itself.

Persons' keys never come to the server: what is to be signed goes to them as a file, one after the other, and back.
"""

import hashlib
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, NamedTuple, TypeVar

import msgspec
import typer
from tuf.api.metadata import Metadata, Root, Targets

from broker_config.ids import ContractError
from broker_config.limits import RELEASE_BYTES_MAX, RELEASE_METADATA_BYTES_MAX
from broker_config.releases import Custom, ImageKind, read_custom
from fleet_server.access import countersigning
from fleet_server.access.signing import SignerError
from fleet_server.adapters.files import write_durably
from fleet_server.adapters.release_directory import ReleaseDirectory
from fleet_server.adapters.signing_key import FileKey, new_key_pem
from fleet_server.cli import release_answers as answers
from fleet_server.cli.countersign_commands import (
    EXIT_FAILED,
    EXIT_USAGE,
    confirmed,
    passphrase_of,
    read_file,
    refused,
)
from fleet_server.config import ConfigError, parse, read_text
from fleet_server.releases import roots, targets
from fleet_server.releases.metadata import ReleaseError, key_of, read, read_any, sign, signers
from fleet_server.releases.publishing import Publisher
from fleet_server.releases.roots import Signers
from fleet_server.releases.targets import Release
from fleet_server.site import RELEASES_DIRECTORY, RELEASES_KEY, SERVER_CONFIG, releases_table

SUFFIX_CHARS_MAX: Final = 16
KEY_BYTES_MAX: Final = 4_096

SiteDirectory = Annotated[
    Path, typer.Option("--dir", help="The site's directory, or where fleet-server.toml is.", file_okay=False)
]
Current = Annotated[
    Path | None,
    typer.Option("--targets", help="The list that is published, where the site's directory is not.", dir_okay=False),
]
Days = Annotated[float, typer.Option(min=1, max=3_650, help="How long it is good.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
PassphraseFile = Annotated[
    Path | None, typer.Option(help="Where the passphrase is, for scripts; asked for if not given.", dir_okay=False)
]
Public = Annotated[list[str] | None, typer.Option(metavar="PUBLIC", help="What make-key printed; once a person.")]
T = TypeVar("T")


def add_commands(app: typer.Typer) -> None:
    """Mount them on the program's command line."""
    group = typer.Typer(no_args_is_help=True, help="Images for devices: who may release, and what is released.")
    for name, does, example in (
        ("make-key", make_key, "make-key a-meyer.key"),
        (
            "propose-root",
            propose_root,
            "propose-root --dir site --root PUBLIC --root PUBLIC --targets PUBLIC --targets PUBLIC > root.json",
        ),
        (
            "propose",
            propose,
            "propose dock.bin --hw dock-2 --kind mcu --version 1.4.0 --counter 12 --dir site > new.json",
        ),
        ("withdraw", withdraw, "withdraw mcu/dock-2/1.4.0.bin --dir site > new.json"),
        ("renew", renew, "renew --dir site > new.json"),
        ("sign", sign_proposal, "sign new.json --key a-meyer.key --root root.json > signed.json"),
        ("adopt", adopt, "adopt signed.json --image dock.bin --dir site"),
        ("refresh", refresh, "refresh --dir site"),
        ("list", list_releases, "list --dir site"),
    ):
        group.command(name, epilog=f"Example: fleet-server releases {example}")(does)
    app.add_typer(group, name="releases")


# persons, at a machine of their own -------------------------------------------------------------------------------


def make_key(
    key: Annotated[Path, typer.Argument(metavar="KEY", help="The file of a person's own key.", dir_okay=False)],
    passphrase_file: PassphraseFile = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="None; the file's mode is all that guards it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a person's key for releases, and print its public half. The key stays where it was made.

    Exit codes: 0 made, 1 it could not be, 2 the passphrase is too short or the file is there already.
    """
    passphrase = None if no_passphrase else passphrase_of(passphrase_file, new=True)
    if key.exists():
        raise refused(f"{key}: is there already, and is never overwritten", EXIT_USAGE)
    pem = new_key_pem(passphrase)
    try:
        write_durably(key, pem)
    except OSError as error:
        raise refused(error, EXIT_FAILED) from error
    public = FileKey(pem, passphrase).public
    text = countersigning.public_text(public)
    typer.echo(answers.as_json({"public": text, "keyid": key_of(public).keyid}) if as_json else text)
    typer.echo("next: whoever keeps the site runs fleet-server releases propose-root with this line", err=True)


def sign_proposal(
    proposal: Annotated[Path, typer.Argument(metavar="PROPOSAL", help="What is to be signed.", dir_okay=False)],
    key: Annotated[Path, typer.Option("--key", help="The file of your own key.", dir_okay=False)],
    root: Annotated[
        Path | None,
        typer.Option("--root", help="The root that is published; not given only for the first.", dir_okay=False),
    ] = None,
    before: Annotated[
        Path | None,
        typer.Option("--targets", help="The list that is published, to be told what changes.", dir_okay=False),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", help="An image, to be told whether it is one of those. May be given again."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; you have read it.")] = False,
) -> None:
    """Read what another proposes, and put your signature to it.

    Exit codes: 0 signed, 1 refused, or you said no, 2 a file is not what it should be.
    """
    try:
        proposed = read_any(read_file(proposal, RELEASE_METADATA_BYTES_MAX))
        current = None if root is None else read(read_file(root, RELEASE_METADATA_BYTES_MAX), Root)
        last = None if before is None else read(read_file(before, RELEASE_METADATA_BYTES_MAX), Targets)
        told = answers.told(proposed, current, last, {str(each): _digest(each) for each in image or ()})
    except (ContractError, OSError) as error:
        raise refused(error, EXIT_USAGE) from error
    for line in told:
        typer.echo(line, err=True)
    data = read_file(key, KEY_BYTES_MAX)
    try:
        own = FileKey(data, passphrase_of(passphrase_file, new=False) if b"ENCRYPTED" in data else None)
        trusted = _whose(proposed, current, key_of(own.public).keyid)
        if not yes and not confirmed():
            raise typer.Exit(EXIT_FAILED)
        sign(proposed, own)
    except (SignerError, ReleaseError) as error:
        raise refused(error, EXIT_FAILED) from error
    sys.stdout.write(_text(proposed))
    for each in trusted:
        signed, threshold = signers(proposed, each)
        typer.echo(f"version {each.version} of the root: {len(signed)} of {threshold} signatures", err=True)
    typer.echo("next: the same by another person, or fleet-server releases adopt", err=True)


# whoever keeps the site -------------------------------------------------------------------------------------------


def propose_root(
    directory: SiteDirectory = Path("site"),
    root: Public = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--targets", metavar="PUBLIC", help="Of who may release; once a person."),
    ] = None,
    threshold: Annotated[
        int | None, typer.Option(min=roots.THRESHOLD_MIN, help="How many of each have to sign.")
    ] = None,
    days: Days = roots.ROOT_DAYS,
) -> None:
    """Write on stdout who is to be allowed to release, for persons to sign: the first root, or what follows it.

    What is not given stays as it is. Makes the server's own key if there is none. Exit codes: 0 proposed, 1 it could
    not be written, 2 it may not be, or no site.
    """
    publisher, now = _publisher(directory), datetime.now(UTC)
    may_change, may_release = (_keys(given or []) for given in (root, target))
    online = _online(directory, make=True).public

    def proposed() -> Metadata[Root]:
        current = publisher.root()
        if current is None:
            signers_ = Signers(may_change, may_release, online, threshold or roots.THRESHOLD_MIN)
            return roots.first_root(signers_, now=now, days=days)
        return roots.next_root(
            current, root=may_change, targets=may_release, online=online, threshold=threshold, now=now, days=days
        )

    made = _asked(proposed)
    sys.stdout.write(_text(made))
    expected = "as the root before and as this one ask" if made.signed.version > 1 else "as it asks itself"
    typer.echo(f"root version {made.signed.version}, to be signed {expected}: fleet-server releases sign", err=True)


def propose(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The file to release.", dir_okay=False)],
    hw: Annotated[str, typer.Option(help="The hardware that it is for.")],
    kind: Annotated[ImageKind, typer.Option(help="Whether it is for the board or a microcontroller.")],
    version: Annotated[str, typer.Option(help="For people; never used again for another image.")],
    counter: Annotated[int, typer.Option(help="The release counter: higher is newer.")],
    allow_downgrade_from: Annotated[
        list[int] | None,
        typer.Option(help="A counter of what may be followed by this though it is older. May be given again."),
    ] = None,
    directory: SiteDirectory = Path("site"),
    current: Current = None,
    days: Days = targets.TARGETS_DAYS,
) -> None:
    """Write on stdout the list of releases with one more, for persons to sign.

    Exit codes: 0 proposed, 2 it may not be released, or no site.
    """

    def proposed() -> Metadata[Targets]:
        raw = {"hw": hw, "kind": kind.value, "version": version, "counter": counter}
        custom: Custom = read_custom(raw | {"allow_downgrade_from": allow_downgrade_from or []})
        suffix = image.suffix if len(image.suffix) <= SUFFIX_CHARS_MAX else ""
        digest, size = _digest(image)
        release = Release(targets.path_of(custom, suffix), digest, size, custom)
        return targets.with_release(_current(directory, current), release, now=datetime.now(UTC), days=days)

    _propose(proposed)


def withdraw(
    path: Annotated[str, typer.Argument(metavar="PATH", help="As list names it.")],
    directory: SiteDirectory = Path("site"),
    current: Current = None,
    days: Days = targets.TARGETS_DAYS,
) -> None:
    """Write on stdout the list of releases with one less, for persons to sign. Exit codes: as propose."""

    def proposed() -> Metadata[Targets]:
        there = _current(directory, current)
        if there is None:
            raise ReleaseError(f"{path}: expected one that is released; nothing is")
        return targets.without(there, path, now=datetime.now(UTC), days=days)

    _propose(proposed)


def renew(
    directory: SiteDirectory = Path("site"), current: Current = None, days: Days = targets.TARGETS_DAYS
) -> None:
    """Write on stdout the same list of releases for longer, for persons to sign; also after the persons have changed.

    Exit codes: as propose.
    """
    _propose(lambda: targets.renewed(_current(directory, current), now=datetime.now(UTC), days=days))


def adopt(
    proposal: Annotated[Path, typer.Argument(metavar="SIGNED", help="What persons have signed.", dir_okay=False)],
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", help="The file of what is new in it. May be given again.", dir_okay=False),
    ] = None,
    directory: SiteDirectory = Path("site"),
    as_json: AsJson = False,
) -> None:
    """Publish what persons have signed: a root, or a list of releases with its images.

    Exit codes: 0 published, 1 refused: too few signatures, or an image is missing, 2 no site.
    """
    publisher, data = _publisher(directory), read_file(proposal, RELEASE_METADATA_BYTES_MAX)
    online = _online(directory, make=False)

    def adopted() -> answers.Adopted:
        proposed = read_any(data)
        if isinstance(proposed.signed, Root):
            return answers.Adopted("root", publisher.adopt_root(data, online))
        by_digest = {_digest(each)[0]: each for each in image or ()}
        listed = list(targets.releases(proposed.signed))
        unknown = by_digest.keys() - {each.sha256 for each in listed}
        if unknown:
            raise ReleaseError(f"{by_digest[min(unknown)]}: expected an image that is in the list, got another")
        images = {each.path: by_digest[each.sha256] for each in listed if each.sha256 in by_digest}
        return answers.Adopted("targets", publisher.adopt_targets(data, images, online))

    done = _published(adopted)
    typer.echo(answers.as_json(done) if as_json else answers.adopted(done))
    if done.role == "root" and not as_json:
        if publisher.standing().unsigned:
            typer.echo(
                "the list of releases counts no more; next: fleet-server releases renew, sign, adopt", err=True
            )
        if done.published.root == 1:
            typer.echo(f"add to fleet-server.toml, if it is not there, and restart:\n{releases_table()}", err=True)


def refresh(
    directory: SiteDirectory = Path("site"),
    force: Annotated[bool, typer.Option("--force", help="Though nothing is due yet.")] = False,
    as_json: AsJson = False,
) -> None:
    """Have the server's key sign what is the newest, as a server does by itself whose configuration names that key.

    Exit codes: 0 signed or not due, 1 it could not be, 2 no site.
    """
    publisher, online = _publisher(directory), _online(directory, make=False)
    done = answers.Adopted("timestamp", _published(lambda: publisher.refresh(online, force=force)))
    typer.echo(answers.as_json(done) if as_json else answers.adopted(done))


def list_releases(directory: SiteDirectory = Path("site"), as_json: AsJson = False) -> None:
    """Show what is released, and until when what is signed is good. Exit codes: 0 shown, 2 no site or no releases."""
    standing = _asked(_publisher(directory).standing)
    typer.echo(answers.listed_json(standing) if as_json else answers.listed(standing))


# what they share --------------------------------------------------------------------------------------------------


class _Place(NamedTuple):
    directory: Path
    key_file: Path


def _place(directory: Path) -> _Place:
    """As the server's configuration says; what that says nothing of is beside it."""
    for file in (directory / SERVER_CONFIG, directory / Path(SERVER_CONFIG).name):
        if file.is_file():
            base = file.resolve().parent
            table = _asked(lambda: parse(read_text(file), base=base, source=str(file))).releases  # noqa: B023 - used at once
            default = _Place(base / Path(RELEASES_DIRECTORY).name, base / Path(RELEASES_KEY).name)
            return default if table is None else _Place(table.directory, table.key_file or default.key_file)
    raise refused(f"{directory}: expected a site, as fleet-server init makes it; give --dir", EXIT_USAGE)


def _publisher(directory: Path) -> Publisher:
    return Publisher(ReleaseDirectory(_place(directory).directory), lambda: datetime.now(UTC))


def _current(directory: Path, file: Path | None) -> Metadata[Targets] | None:
    """Raises ReleaseError, OSError."""
    if file is None:
        return _publisher(directory).targets()
    return read(read_file(file, RELEASE_METADATA_BYTES_MAX), Targets)


def _online(directory: Path, *, make: bool) -> FileKey:
    path = _place(directory).key_file
    try:
        if make and not path.exists():
            write_durably(path, new_key_pem())
        return FileKey.read(path)
    except FileNotFoundError as error:
        raise refused(f"{path}: no such file; first: fleet-server releases propose-root", EXIT_USAGE) from error
    except (OSError, SignerError) as error:
        raise refused(error, EXIT_FAILED) from error


def _keys(texts: list[str]) -> frozenset[bytes]:
    return frozenset(_asked(lambda: [countersigning.read_public(each) for each in texts]))


def _digest(image: Path) -> tuple[str, int]:
    """Of an image, and its size. Raises ReleaseError, OSError."""
    size = image.stat().st_size
    if size > RELEASE_BYTES_MAX:
        raise ReleaseError(f"{image}: expected at most {RELEASE_BYTES_MAX} bytes, got {size}")
    with image.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), size


def _whose(proposed: Metadata[Root] | Metadata[Targets], current: Metadata[Root] | None, keyid: str) -> list[Root]:
    """The roots that ask for signatures of *proposed*. Raises ReleaseError: nobody asks for the key's."""
    asking = [] if current is None else [current.signed]
    if isinstance(proposed.signed, Root):
        asking.append(proposed.signed)
    elif current is None:
        raise ReleaseError("targets: expected --root, which says who may sign them")
    if not any(keyid in root.roles[proposed.signed.type].keyids for root in asking):
        raise ReleaseError("your key is not one that may sign this")
    return asking


def _text(proposed: Metadata[Root] | Metadata[Targets]) -> str:
    return msgspec.json.format(proposed.to_bytes(), indent=1).decode() + "\n"


def _propose(proposed: Callable[[], Metadata[Targets]]) -> None:
    made = _asked(proposed)
    sys.stdout.write(_text(made))
    typer.echo(f"targets version {made.signed.version}; next, by each person: fleet-server releases sign", err=True)


def _asked(do: Callable[[], T]) -> T:
    try:
        return do()
    except (ConfigError, ContractError, SignerError, OSError) as error:
        raise refused(error, EXIT_USAGE) from error


def _published(do: Callable[[], T]) -> T:
    try:
        return do()
    except (ContractError, SignerError, OSError) as error:
        raise refused(error, EXIT_FAILED) from error
