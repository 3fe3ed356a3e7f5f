"""Puts a person's own signature beside the server's, at their machine."""

import time
from collections.abc import Sequence
from pathlib import Path

import typer

from broker_config import signing
from broker_config.ids import ContractError
from broker_config.signing import ROOTS_BYTES_MAX
from fleet_server.access import countersigning
from fleet_server.access.signing import SignerError
from fleet_server.adapters.signing_key import FileKey
from fleet_server.cli.countersign_commands import (
    EXIT_FAILED,
    EXIT_USAGE,
    confirmed,
    passphrase_of,
    read_file,
    refused,
    told,
)


def signed(orders: Sequence[str], key: Path, signers: Path, passphrase_file: Path | None, *, yes: bool) -> list[str]:
    """*orders* with the signature of *key*, once the person has read them and said yes. Ends the program if not."""
    try:
        roots = signing.decode_roots(read_file(signers, ROOTS_BYTES_MAX))
        envelopes = [signing.decode_envelope(order.encode()) for order in orders]
    except ContractError as error:
        raise refused(error, EXIT_USAGE) from error
    try:
        for envelope in envelopes:
            for line in told(countersigning.read(envelope, roots, now_ms=_now_ms())):
                typer.echo(line, err=True)
        if not yes and not confirmed():
            raise typer.Exit(EXIT_FAILED)
        own = FileKey(read_file(key, ROOTS_BYTES_MAX), passphrase_of(passphrase_file, new=False))
        # the time anew: somebody may have read it for long
        both = [countersigning.countersign(each, roots, own, now_ms=_now_ms()) for each in envelopes]
    except SignerError as error:
        raise refused(error, EXIT_FAILED) from error
    return [signing.encode(each).decode("ascii") for each in both]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
