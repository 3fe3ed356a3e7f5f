"""``fleet-server add-signer``, ``remove-signer``, ``rotate-signer``, ``change-thresholds``, ``sign-signers``,
``adopt-signers``: whom devices obey. And ``rotate-mac-key``, ``drop-former-mac-keys``: what receipts are made with.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from broker_config import signing
from broker_config.ids import ContractError
from broker_config.signing import CHANGE_SIGNERS, ED25519, ROOTS_BYTES_MAX, Kind, Roots
from broker_config.trust import STEP_BYTES_MAX
from fleet_server.access import countersigning, signers
from fleet_server.access.keys import MasterKey, MasterKeys
from fleet_server.access.signing import RefusedError, SignerError
from fleet_server.adapters.files import write_durably
from fleet_server.adapters.signers_directory import SignersDirectory
from fleet_server.adapters.signing_key import FileKey, new_key_pem
from fleet_server.cli.countersign_commands import (
    EXIT_FAILED,
    EXIT_USAGE,
    confirmed,
    passphrase_of,
    read_file,
    refused,
)
from fleet_server.site import MASTER_KEY_FILE, SIGNERS_FILE, SIGNING_KEY_FILE

NEXT_SIGNING_KEY_FILE: Final = "server/signing.next.key"

SiteDirectory = Annotated[Path, typer.Option("--dir", help="The site's directory.", file_okay=False)]
RootKey = Annotated[
    Path | None,
    typer.Option("--root-key", help="A key that may change the signers.", dir_okay=False),
]
RootPassphrase = Annotated[
    Path | None,
    typer.Option("--root-passphrase-file", help="Where its passphrase is, if any.", dir_okay=False),
]


def add_commands(app: typer.Typer) -> None:
    """Mount them on the program's command line."""
    for name, does, example in (
        ("add-signer", add_signer, "add-signer ed25519:pVTy... --dir site --root-key signers-root.key"),
        ("remove-signer", remove_signer, "remove-signer 22055d62f7ed4c90 --dir site --root-key signers-root.key"),
        ("rotate-signer", rotate_signer, "rotate-signer --dir site --root-key signers-root.key"),
        ("change-thresholds", change_thresholds, "change-thresholds --signers 2 --dir site --root-key a.key"),
        ("sign-signers", sign_signers, "sign-signers step.json --signers signers.json --root-key b.key > both.json"),
        ("adopt-signers", adopt_signers, "adopt-signers both.json --dir site"),
        ("rotate-mac-key", rotate_mac_key, "rotate-mac-key --dir site"),
        ("drop-former-mac-keys", drop_former_mac_keys, "drop-former-mac-keys --dir site"),
    ):
        app.command(name, epilog=f"Example: fleet-server {example}")(does)


def add_signer(
    public: Annotated[str, typer.Argument(metavar="PUBLIC", help="What make-signer-key printed.")],
    directory: SiteDirectory = Path("site"),
    kind: Annotated[
        list[str] | None,
        typer.Option(help="What it may sign; signers: change them. May be given again."),
    ] = None,
    root_key: RootKey = None,
    root_passphrase_file: RootPassphrase = None,
) -> None:
    """Let a person's key sign for this site's devices, beside the server's; every enrolled device hears of it.

    Kind `signers` lets it change the signers. Exit codes: 0 added, or proposed on stdout because more must sign; 1 it
    could not be written; 2 it is no such key, there already, may not be, or no site.
    """

    def change(roots: Roots) -> Roots:
        return signers.with_signer(roots, countersigning.read_public(public), kind or [Kind.COMMAND.value])

    _change(directory, change, root_key, root_passphrase_file)


def remove_signer(
    keyid: Annotated[str, typer.Argument(metavar="KEYID", help="As signers.json names it.")],
    directory: SiteDirectory = Path("site"),
    root_key: RootKey = None,
    root_passphrase_file: RootPassphrase = None,
) -> None:
    """Have nothing count any more that a key signs, on each device once it has heard of it.

    The key that the server signs with has to be rotated first. Exit codes: as add-signer.
    """
    own = directory / SIGNING_KEY_FILE
    try:
        in_use = own.is_file() and _keyid(FileKey.read(own)) == keyid
    except (OSError, SignerError) as error:
        raise refused(error, EXIT_USAGE) from error
    if in_use:
        raise refused(f"{keyid}: the server signs with it; first: fleet-server rotate-signer", EXIT_USAGE)
    _change(directory, lambda roots: signers.without_signer(roots, keyid), root_key, root_passphrase_file)


def rotate_signer(
    directory: SiteDirectory = Path("site"),
    switch: Annotated[bool, typer.Option("--switch", help="The new key takes the old one's place.")] = False,
    root_key: RootKey = None,
    root_passphrase_file: RootPassphrase = None,
) -> None:
    """Give the server another signing key, in three steps: this; with --switch, once the devices know it; then
    remove-signer for the old one.

    Exit codes: as add-signer.
    """
    own, after = directory / SIGNING_KEY_FILE, directory / NEXT_SIGNING_KEY_FILE
    if switch:
        _switch(directory, own, after)
        return
    try:
        old = _keyid(FileKey.read(own))
        if not after.exists():
            write_durably(after, new_key_pem())
        new = FileKey.read(after)
    except (OSError, SignerError) as error:
        raise refused(error, EXIT_FAILED) from error

    def change(roots: Roots) -> Roots:
        kinds = next((each.kinds for each in roots.signers if each.keyid == old), ())
        return signers.with_signer(roots, new.public, kinds)

    _change(directory, change, root_key, root_passphrase_file)
    typer.echo("next: when the devices know it, fleet-server rotate-signer --switch", err=True)


def _switch(directory: Path, own: Path, after: Path) -> None:
    try:
        new, old = FileKey.read(after), _keyid(FileKey.read(own))
        roots = SignersDirectory(directory / SIGNERS_FILE).current().roots
        if all(each.keyid != _keyid(new) for each in roots.signers):
            raise refused(f"{_keyid(new)}: is no signer yet; first: fleet-server rotate-signer", EXIT_USAGE)
        after.replace(own)
    except FileNotFoundError as error:
        raise refused(f"{after}: there is none; first: fleet-server rotate-signer", EXIT_USAGE) from error
    except (OSError, SignerError, ContractError) as error:
        raise refused(error, EXIT_FAILED) from error
    typer.echo(f"the server signs with {_keyid(new)} from the next start of fleet-server signer on")
    typer.echo(f"next: restart fleet-server signer, then fleet-server remove-signer {old}", err=True)


def change_thresholds(
    directory: SiteDirectory = Path("site"),
    disruptive: Annotated[int | None, typer.Option(min=1, help="Signers of a disruptive order.")] = None,
    hazardous: Annotated[int | None, typer.Option(min=2, help="Signers of a hazardous order.")] = None,
    needed: Annotated[int | None, typer.Option("--signers", min=1, help="Of a change of the signers.")] = None,
    root_key: RootKey = None,
    root_passphrase_file: RootPassphrase = None,
) -> None:
    """Have an order, or a change of the signers themselves, need so many different signers.

    Exit codes: as add-signer.
    """
    asked = {"disruptive": disruptive, "hazardous": hazardous, CHANGE_SIGNERS: needed}
    given = {name: count for name, count in asked.items() if count is not None}
    if not given:
        raise refused("thresholds: expected --disruptive, --hazardous or --signers", EXIT_USAGE)
    _change(directory, lambda roots: signers.with_thresholds(roots, **given), root_key, root_passphrase_file)


def sign_signers(
    proposal: Annotated[Path, typer.Argument(metavar="STEP", help="What add-signer and its like printed.")],
    current: Annotated[Path, typer.Option("--signers", help="The site's signers.json.", dir_okay=False)],
    root_key: Annotated[Path, typer.Option("--root-key", help="Your own key.", dir_okay=False)],
    root_passphrase_file: RootPassphrase = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; you have read it.")] = False,
) -> None:
    """Read a change of the signers that another signed, and put your signature beside it. Needs no network.

    Exit codes: 0 signed, 1 refused, or you said no, 2 a file is not what it should be.
    """
    try:
        before = signing.decode_roots(read_file(current, ROOTS_BYTES_MAX))
        step = signing.decode_envelope(read_file(proposal, STEP_BYTES_MAX).strip())
        missing = signers.missing(before, step)
        after = signing.decode_roots(step.payload)
    except (ContractError, RefusedError) as error:
        raise refused(error, EXIT_USAGE) from error
    for line in filter(None, told(before, after)):
        typer.echo(line, err=True)
    typer.echo(f"signatures missing: {missing}", err=True)
    if not yes and not confirmed():
        raise typer.Exit(EXIT_FAILED)
    try:
        signed = signers.sign(before, step, _root(root_key, root_passphrase_file))
    except SignerError as error:
        raise refused(error, EXIT_FAILED) from error
    sys.stdout.write(signing.encode(signed).decode("ascii") + "\n")


def adopt_signers(
    step: Annotated[Path, typer.Argument(metavar="STEP", help="What sign-signers printed.", dir_okay=False)],
    directory: SiteDirectory = Path("site"),
) -> None:
    """Put a change of the signers in place that enough have signed.

    Exit codes: 0 in place, 1 it could not be written, 2 too few have signed it, or it does not follow.
    """
    try:
        envelope = signing.decode_envelope(read_file(step, STEP_BYTES_MAX).strip())
        roots = SignersDirectory(directory / SIGNERS_FILE).adopt(envelope)
    except (ContractError, RefusedError) as error:
        raise refused(error, EXIT_USAGE) from error
    except OSError as error:
        raise refused(error, EXIT_FAILED) from error
    typer.echo(f"version {roots.version} of the signers is in place")


def told(before: Roots, after: Roots) -> tuple[str, ...]:
    """What changes, in lines."""
    old, new = ({each.keyid: each.kinds for each in roots.signers} for roots in (before, after))
    return (
        f"site     {after.site}",
        f"version  {before.version} -> {after.version}",
        *(f"removed  {keyid} ({', '.join(kinds)})" for keyid, kinds in old.items() if keyid not in new),
        *(f"signer   {keyid} may sign {', '.join(kinds)}" for keyid, kinds in new.items() if old.get(keyid) != kinds),
        f"needed   {before.thresholds} -> {after.thresholds}" if before.thresholds != after.thresholds else "",
    )


def _change(directory: Path, change: Callable[[Roots], Roots], root_key: Path | None, phrase: Path | None) -> None:
    """Sign the next version, and put it in place if that is enough; else print it for the next person."""
    kept = SignersDirectory(directory / SIGNERS_FILE)
    try:
        before = kept.current().roots
        after = change(before)
        if not before.changed_by:
            kept.replace(after)
            typer.echo(f"version {after.version} of the signers is in place")
            typer.echo("nobody may sign a change of it: devices that enrolled before have to enrol again", err=True)
            return
        if root_key is None:
            raise refused("--root-key: expected the file of a key that may change the signers", EXIT_USAGE)
        step = signers.sign(before, signers.propose(before, after), _root(root_key, phrase))
        lacking = signers.missing(before, step)
        if lacking:
            sys.stdout.write(signing.encode(step).decode("ascii") + "\n")
            typer.echo(f"nothing has changed yet: {lacking} more must sign it: fleet-server sign-signers", err=True)
            return
        kept.adopt(step)
    except FileNotFoundError as error:
        raise refused(error, EXIT_USAGE) from error
    except OSError as error:
        raise refused(error, EXIT_FAILED) from error
    except (ContractError, SignerError) as error:
        raise refused(error, EXIT_USAGE) from error
    for line in filter(None, told(before, after)):
        typer.echo(line)
    typer.echo("devices take it up within six hours, sooner if the server runs", err=True)


def rotate_mac_key(directory: SiteDirectory = Path("site")) -> None:
    """Make another master key; the one before counts on, for devices that have not fetched theirs yet.

    Exit codes: 0 done, 1 it could not be written, 2 there are too many former ones, or no site.
    """
    keys = _changed_keys(directory, lambda keys: keys.rotated(MasterKey.new()))
    typer.echo(f"master key {keys.current.kid}; {len(keys.formers)} former ones count on")
    typer.echo("next: when the devices have theirs, fleet-server drop-former-mac-keys", err=True)


def drop_former_mac_keys(directory: SiteDirectory = Path("site")) -> None:
    """Have the former master keys count no more. A device that has not been there since fetches its keys and goes on.

    Exit codes: 0 done, 1 it could not be written, 2 no site.
    """
    keys = _changed_keys(directory, lambda keys: MasterKeys(keys.current))
    typer.echo(f"master key {keys.current.kid}; no former ones")


def _changed_keys(directory: Path, change: Callable[[MasterKeys], MasterKeys]) -> MasterKeys:
    path = directory / MASTER_KEY_FILE
    try:
        keys = change(MasterKeys.parse(path.read_text(encoding="ascii")))
    except (OSError, ContractError, UnicodeDecodeError) as error:
        raise refused(error, EXIT_USAGE) from error
    try:
        write_durably(path, keys.text().encode("ascii"))
    except OSError as error:
        raise refused(error, EXIT_FAILED) from error
    return keys


def _root(path: Path, phrase_file: Path | None) -> FileKey:
    """A root key, under a passphrase or none; asked for only if there is one."""
    data = read_file(path, ROOTS_BYTES_MAX)
    encrypted = b"ENCRYPTED" in data
    return FileKey(data, passphrase_of(phrase_file, new=False) if encrypted else None)


def _keyid(key: FileKey) -> str:
    return signing.key_id(ED25519, key.public)
