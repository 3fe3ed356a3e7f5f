"""What the commands share: which server is meant, how much, and how an answer is shown."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer
from rich.console import Console, RenderableType

from fleet_server.cli import moments
from fleet_server.cli.server import CommandError, Exit, Json, Parameters, Server, connect, find

ENTRIES_DEFAULT: Final = 1_000
ENTRIES_MAX: Final = 100_000
PIPE_COLUMNS: Final = 200
"""As wide as a table may be that goes to no terminal."""

Site: TypeAlias = Annotated[Path | None, typer.Option("--site", help="The site's directory.", show_default=False)]
Url: TypeAlias = Annotated[str | None, typer.Option("--url", help="The API, such as http://127.0.0.1:8470.")]
TokenFile: TypeAlias = Annotated[Path | None, typer.Option("--token-file", help="The file of the API's token.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON document instead of a table.")]
DeviceId: TypeAlias = Annotated[str, typer.Argument(metavar="DEVICE", help="The device's id.")]
From: TypeAlias = Annotated[str, typer.Option("--from", help="Such as -90s, -15m, -1h, -7d, or RFC 3339.")]
To: TypeAlias = Annotated[str, typer.Option("--to", help="The same, or now.")]
Limit: TypeAlias = Annotated[int, typer.Option("--limit", min=1, max=ENTRIES_MAX, help="Entries at most.")]
RowId: TypeAlias = Annotated[int, typer.Argument(metavar="ID", min=1, help="Of `fieldfleet quarantine list`.")]


def now_ms() -> int:
    """Ms since the epoch."""
    return time.time_ns() // 1_000_000


@contextmanager
def server_of(site: Path | None, url: str | None, token_file: Path | None) -> Iterator[Server]:
    """The API that is meant; errors become a message and an exit code."""
    try:
        with connect(find(site=site, url=url, token_file=token_file)) as server:
            yield server
    except CommandError as error:
        raise failed(error) from error


def failed(error: CommandError) -> typer.Exit:
    """Say it on stderr; the exit with its code."""
    typer.echo(f"fieldfleet: {error}", err=True)
    return typer.Exit(error.code)


def show(document: Json, table: RenderableType, *, as_json: bool, more: bool = False) -> None:
    """One of the two on stdout; on stderr that there is more."""
    if as_json:
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        console().print(table)
    if more:
        typer.echo("fieldfleet: there are more entries; give a larger --limit", err=True)


def between(begin: str, end: str) -> Parameters:
    """A range as the API takes it."""
    now = now_ms()
    return {"from": moments.for_api(begin, now_ms=now), "to": moments.for_api(end, now_ms=now)}


def write_new(path: Path, data: bytes) -> None:
    """Raises CommandError: it is there already, or cannot be made."""
    save_new(iter((data,)), path)


def save_new(parts: Iterator[bytes], file: Path) -> int:
    """Write a new file, or none; how large it is. Raises CommandError."""
    try:
        out = file.open("xb")
    except OSError as error:
        raise CommandError(Exit.USAGE, f"{file} cannot be written: {error.strerror}") from error
    try:
        with out:
            for part in parts:
                out.write(part)
            return out.tell()
    except BaseException as error:
        file.unlink()
        if isinstance(error, OSError):
            raise CommandError(Exit.USAGE, f"{file} cannot be written: {error.strerror}") from error
        raise


def console() -> Console:
    """Where tables go: as wide as the terminal, or wide enough for a file."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
