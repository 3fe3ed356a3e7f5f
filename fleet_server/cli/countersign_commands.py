"""``fleet-server make-signer-key`` and ``countersign``: the second person, at a machine of their own; and
``make-token-key``: the signer's key, in a token.
"""

import sys
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from broker_config import signing
from broker_config.ids import ContractError
from broker_config.signing import ENVELOPE_BYTES_MAX, ROOTS_BYTES_MAX
from broker_config.text import shown
from fleet_server.access import countersigning
from fleet_server.access.countersigning import Order
from fleet_server.access.key_uri import KeyUri, KeyUriError
from fleet_server.access.signing import ONLINE_KINDS, SignerError
from fleet_server.adapters.files import write_durably
from fleet_server.adapters.signing_key import FileKey, new_key_pem
from fleet_server.adapters.token_key import make_signing_key
from fleet_server.cli.moments import utc

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
ERROR_CHARS_MAX: Final = 500
PASSPHRASE_CHARS_MIN: Final = 12
PASSPHRASE_BYTES_MAX: Final = 1023
LINE_CHARS_MAX: Final = 16 * ENVELOPE_BYTES_MAX
"""Nothing of an order is cut off: whoever signs it has to see all of it."""

KeyFile = Annotated[Path, typer.Argument(metavar="KEY", help="The file of a person's own key.", dir_okay=False)]
PassphraseFile = Annotated[
    Path | None, typer.Option(help="Where the passphrase is, for scripts; asked for if not given.", dir_okay=False)
]


def add_commands(app: typer.Typer) -> None:
    """Mount them on the program's command line."""
    app.command("make-signer-key", epilog="Example: fleet-server make-signer-key a-meyer.key")(make_signer_key)
    app.command(
        "make-token-key",
        epilog="Example: fleet-server make-token-key 'pkcs11:token=site;object=signer?module-path="
        "/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/site.pin'",
    )(make_token_key)
    app.command(
        "countersign",
        epilog="Example: fleet-server countersign order.json --key a-meyer.key --signers signers.json > signed.json",
    )(countersign)


def make_signer_key(key: KeyFile, passphrase_file: PassphraseFile = None) -> None:
    """Make a person's key, under a passphrase that only they know, and print its public half.

    Exit codes: 0 made, 1 it could not be, 2 the passphrase is too short or the file is there already.
    """
    passphrase = passphrase_of(passphrase_file, new=True)
    if key.exists():
        raise refused(f"{key}: is there already, and is never overwritten", EXIT_USAGE)
    pem = new_key_pem(passphrase)
    try:
        write_durably(key, pem)
    except OSError as error:
        raise refused(error, EXIT_FAILED) from error
    typer.echo(countersigning.public_text(FileKey(pem, passphrase).public))
    typer.echo("next: whoever keeps the site runs fleet-server add-signer with this line", err=True)


def make_token_key(
    uri: Annotated[str, typer.Argument(metavar="URI", help="Which key in which token (PKCS #11, RFC 7512).")],
) -> None:
    """Make the signer's key in a token, which never gives it away, and print its public half; if it is there already,
    only print.

    Exit codes: 0 printed, 1 the token refused, 2 it is no URI of a key.
    """
    try:
        key, made = make_signing_key(KeyUri.parse(uri))
    except KeyUriError as error:
        raise refused(error, EXIT_USAGE) from error
    except SignerError as error:
        raise refused(error, EXIT_FAILED) from error
    typer.echo(countersigning.public_text(key.public))
    typer.echo("made in the token" if made else "was in the token already", err=True)
    kinds = " ".join(f"--kind {kind}" for kind in sorted(ONLINE_KINDS))
    typer.echo(f"next: fleet-server add-signer with this line and {kinds}; once the devices know it, give", err=True)
    typer.echo("[signer] key_uri in place of key_file, and restart fleet-server signer", err=True)


def countersign(
    order: Annotated[Path, typer.Argument(metavar="ORDER", help="What sign-command printed.", dir_okay=False)],
    key: Annotated[Path, typer.Option("--key", help="The file of your own key.", dir_okay=False)],
    signers: Annotated[Path, typer.Option("--signers", help="The site's signers.json.", dir_okay=False)],
    passphrase_file: PassphraseFile = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; you have read it.")] = False,
) -> None:
    """Read an order that another signed, and put your signature beside it.

    Exit codes: 0 signed, 1 refused, or you said no, 2 a file is not what it should be.
    """
    now_ms = time.time_ns() // 1_000_000
    try:
        roots = signing.decode_roots(read_file(signers, ROOTS_BYTES_MAX))
        envelope = signing.decode_envelope(read_file(order, ENVELOPE_BYTES_MAX).strip())
    except ContractError as error:
        raise refused(error, EXIT_USAGE) from error
    try:
        for line in told(countersigning.read(envelope, roots, now_ms=now_ms)):
            typer.echo(line, err=True)
        if not yes and not confirmed():
            raise typer.Exit(EXIT_FAILED)
        own = FileKey(read_file(key, ROOTS_BYTES_MAX), passphrase_of(passphrase_file, new=False))
        # the time anew: somebody may have read it for long
        signed = countersigning.countersign(envelope, roots, own, now_ms=time.time_ns() // 1_000_000)
    except SignerError as error:
        raise refused(error, EXIT_FAILED) from error
    sys.stdout.write(signing.encode(signed).decode("ascii") + "\n")
    typer.echo(f"{len(signed.signatures)} signatures; hazardous needs {roots.thresholds.hazardous}", err=True)


def told(order: Order) -> tuple[str, ...]:
    """All of what is signed, in lines; what is not printable is escaped."""
    claims, command = order.claims, order.command
    if command is None:
        what, inside = claims.kind.value, [_whole(bytes(claims.body))]
    else:
        what = f"{claims.kind.value} {_whole(command.name)} ({command.id})"
        inside = [f"{_whole(name)} = {_whole(repr(value))}" for name, value in command.parameters.items()]
    return (
        f"device   {_whole(claims.target)}",
        f"order    {what}",
        *(f"         {line}" for line in inside),
        f"expires  {utc(claims.expires_ms)}",
        f"signed   {', '.join(order.keyids)}",
    )


def _whole(text: object) -> str:
    return shown(text, LINE_CHARS_MAX)


def confirmed() -> bool:
    """Whether the person says yes."""
    # click's own question writes a blank to stdout, into the order
    typer.echo("sign it? [y/N] ", err=True, nl=False)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def passphrase_of(path: Path | None, *, new: bool) -> bytes:
    """From the file, or asked for; a new one twice."""
    if path is not None:
        text = read_file(path, PASSPHRASE_BYTES_MAX).decode("utf-8", "replace").rstrip("\r\n")
    else:
        text = typer.prompt("passphrase", hide_input=True, confirmation_prompt=new, err=True)
    if new and len(text) < PASSPHRASE_CHARS_MIN:
        expected = f"at least {PASSPHRASE_CHARS_MIN} characters"
        raise refused(f"passphrase: expected {expected}, got {len(text)}", EXIT_USAGE)
    return text.encode()


def read_file(path: Path, bytes_max: int) -> bytes:
    """One byte more than is good, so that what is too large is seen to be."""
    try:
        with path.open("rb") as file:
            return file.read(bytes_max + 1)
    except OSError as error:
        raise refused(error, EXIT_USAGE) from error


def refused(error: Exception | str, code: int) -> typer.Exit:
    """Say why, and end with *code*."""
    typer.echo(shown(error, ERROR_CHARS_MAX), err=True)
    return typer.Exit(code)
