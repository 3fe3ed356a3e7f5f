"""``fieldfleet evidence export``, ``verify`` and ``verifier``: bundles, and what judges them.

The judge is ``verify.py``, the file that is handed to a court, run as it is: there is no second opinion here.
"""

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import msgspec
import typer
from rich.progress import DownloadColumn

from fleet_server.cli import answers
from fleet_server.cli.bars import bar, watched
from fleet_server.cli.moments import for_api
from fleet_server.cli.options import Site, TokenFile, Url, now_ms, save_new, server_of
from fleet_server.cli.server import CommandError, Exit, Json, segment

PATH: Final = "/v1/evidence/exports"
VERIFIER: Final = "verify.py"

KeyFiles: TypeAlias = list[Path] | None


class Export(msgspec.Struct, frozen=True):
    """See the API's ``EvidenceExport``."""

    export: str
    pieces: int
    size_bytes: int


def add_commands(app: typer.Typer) -> None:
    """To ``fieldfleet evidence``."""
    app.command("export", epilog="Example: fieldfleet evidence export --recording r-1 --to case-7.zip")(export_)
    app.command(
        "verify",
        epilog="Example: fieldfleet evidence verify case-7.zip --root device-root.crt --log-key audit.pub",
    )(verify_)
    app.command("verifier", epilog="Example: fieldfleet evidence verifier > verify.py")(verifier)


def export_(
    to: Annotated[Path, typer.Option(help="A file that is not there yet, such as case-7.zip.")],
    pieces: Annotated[
        list[str] | None, typer.Argument(metavar="[PIECE]...", help="Of `fieldfleet evidence list`.")
    ] = None,
    recording: Annotated[str | None, typer.Option(help="All segments of this recording.")] = None,
    device: Annotated[str | None, typer.Option(help="All of this device.")] = None,
    node: Annotated[str | None, typer.Option(help="All that was at this organisation node or below.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="By the device's clock: -1h, -7d, or RFC 3339.")] = None,
    until: Annotated[str | None, typer.Option(help="The same, or now.")] = None,
    witnessed: Annotated[
        Path | None,
        typer.Option(help="The file of a witness (fieldfleet audit witness), to have its word in it."),
    ] = None,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Write a bundle that anybody can check, and verify.py beside it. That it was exported is in the log.

    What is meant: PIECEs, or else all that is kept of a recording, a device or a node, perhaps within a time.
    """
    from fleet_server.cli.audit_proofs import state_of  # noqa: PLC0415 - cryptography, which other commands need not

    now = now_ms()
    body: dict[str, Json] = {
        "pieces": [*(pieces or [])],
        "recording": recording,
        "device": device,
        "node": node,
        "from": None if from_ is None else for_api(from_, now_ms=now),
        "to": None if until is None else for_api(until, now_ms=now),
    }
    with server_of(site, url, token_file) as server:
        if to.exists():
            raise CommandError(Exit.USAGE, f"{to} is there already")
        seen: list[Json] = [] if witnessed is None else [*state_of(witnessed).seen.values()]
        asked = {name: value for name, value in body.items() if value not in (None, [])}
        made = answers.read(server.send("POST", PATH, json={**asked, "witnessed": seen}), Export)
        with bar(DownloadColumn()) as progress:
            task = progress.add_task(made.export, total=made.size_bytes)
            parts = server.stream(f"{PATH}/{segment(made.export)}")
            size = save_new(watched(parts, lambda part: progress.advance(task, len(part))), to)
    beside = to.with_name(VERIFIER)
    if not beside.exists():
        save_new(iter([_verifier()]), beside)
    typer.echo(f"{to}: {made.pieces} files, {size} bytes; to check: python {beside} {to} --root ... --log-key ...")


def verify_(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Of `fieldfleet evidence export`.")],
    root: Annotated[KeyFiles, typer.Option(help="The devices' root certificate, PEM.")] = None,
    log_key: Annotated[KeyFiles, typer.Option(help="The key of the log: audit.pub.")] = None,
    witness_: Annotated[KeyFiles, typer.Option("--witness", help="The key of a witness.")] = None,
    tsa_ca: Annotated[KeyFiles, typer.Option(help="The root of a time-stamping authority, PEM.")] = None,
) -> None:
    """Check a bundle, offline; what verify.py says. Each option may be given again.

    Exit codes: 0 all was checked and holds; 1 something does not hold; 3 nothing failed, but not all was checked;
    2 used wrongly.
    """
    from fleet_server.evidence import verify  # noqa: PLC0415 - as above

    given = {"--root": root, "--log-key": log_key, "--witness": witness_, "--tsa-ca": tsa_ca}
    options = [text for option, some in given.items() for file in some or [] for text in (option, str(file))]
    raise typer.Exit(verify.main([str(bundle), *options]))


def verifier() -> None:
    """Write verify.py, which needs nothing else of ours."""
    typer.echo(_verifier().decode(), nl=False)


def _verifier() -> bytes:
    return files("fleet_server.evidence").joinpath(VERIFIER).read_bytes()
