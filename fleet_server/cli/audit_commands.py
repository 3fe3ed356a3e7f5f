"""``fieldfleet audit``: read the log, export it, verify an export anywhere, and be a witness on another machine."""

import base64
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Final, NoReturn, TypeVar

import msgspec
import typer

from broker_config.text import shown
from fleet_server.access import audit, witness
from fleet_server.access import export as exports
from fleet_server.access.export import LINE_BYTES_MAX, Verdict, Witnessed
from fleet_server.access.notes import COSIGNATURE, KEY_BYTES, NoteError, Signer, Verifier
from fleet_server.adapters.files import write_durably
from fleet_server.cli import answers, tables
from fleet_server.cli.moments import for_api
from fleet_server.cli.options import (
    ENTRIES_DEFAULT,
    AsJson,
    Limit,
    Site,
    TokenFile,
    Url,
    failed,
    now_ms,
    server_of,
    show,
)
from fleet_server.cli.server import CommandError, Exit, Json, Server

KEY_CHARS_MAX: Final = 1_000
PUBLIC_FILE: Final = 0o644
WITNESS_NAME: Final = "fieldfleet/witness/{}"

T = TypeVar("T")

LogNumber = Annotated[int | None, typer.Option("--log", min=0, help="A log's number; the newest if not given.")]
Key = Annotated[
    str | None, typer.Option("--key", metavar="PUBLIC", help="The server's audit.pub: the file, or what is in it.")
]

app = typer.Typer(no_args_is_help=True, help="Who did what, and the proof that nobody changed it afterwards.")


@app.command("list", epilog="Example: fieldfleet audit list --action device.register --from -7d")
def list_(
    actor: Annotated[str | None, typer.Option(help="Only of this one.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this, such as device.register.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only what was done to this, such as car-7.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Such as -1h, -7d, or RFC 3339.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="The same, or now.")] = None,
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List who did what, the newest first. Reading is recorded too."""
    now = now_ms()
    times = {name: None if at is None else for_api(at, now_ms=now) for name, at in (("from", from_), ("to", to))}
    with server_of(site, url, token_file) as server:
        document, more = server.list_all(
            "/v1/audit",
            "entries",
            entries_max=limit,
            parameters={"actor": actor, "action": action, "subject": subject, **times},
        )
        found = answers.read(document, answers.AuditEntries).entries
        show(document, tables.audit(found), as_json=as_json, more=more)


@app.command(epilog="Example: fieldfleet audit export audit.ndjson")
def export(
    file: Annotated[Path, typer.Argument(help="A file that is not there yet.")],
    from_index: Annotated[int, typer.Option(min=0, help="From this entry on.")] = 0,
    log: LogNumber = None,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Write the log to a file that `verify` can check anywhere."""
    with server_of(site, url, token_file) as server:
        size = _save(server.stream("/v1/audit/export", {"from_index": from_index, "log": log}), file)
    typer.echo(f"{file}: {size} bytes; check it with: fieldfleet audit verify {file} --key audit.pub")


@app.command(epilog="Example: fieldfleet audit verify audit.ndjson --key audit.pub --witness witness.json")
def verify(
    file: Annotated[Path, typer.Argument(help="What `export` wrote.")],
    key: Key = None,
    state: Annotated[
        Path | None, typer.Option("--witness", metavar="STATE", help="The file of a witness; see `audit witness`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check an export: no server is asked, and no database.

    Without --key anybody could have made the file. Without --witness a log that lost entries at its end looks whole:
    every checkpoint that was ever signed is a good one.

    Exit codes: 0 every claim holds that could be checked, 1 one does not, 2 wrong usage.
    """
    try:
        trusted = None if key is None else _public(key)
        seen = None if state is None else _witnessed(_state(state))
        with file.open("rb") as lines:
            verdict = exports.verify(iter(lambda: lines.readline(LINE_BYTES_MAX + 2), b""), key=trusted, witness=seen)
    except OSError as error:
        raise failed(CommandError(Exit.USAGE, f"{file} cannot be read: {error.strerror}")) from error
    except CommandError as error:
        raise failed(error) from error
    show(_document(verdict), tables.verdict(verdict), as_json=as_json)
    if not verdict.passed:
        raise typer.Exit(Exit.PROBLEM)


@app.command("witness", epilog="Example: fieldfleet audit witness witness.json --key audit.pub")
def witness_(
    state_file: Annotated[Path, typer.Argument(metavar="STATE", help="What this witness saw; made if not there.")],
    key: Key = None,
    new_log: Annotated[
        bool, typer.Option("--new-log", help="Follow a log that began anew; the operators must have said why.")
    ] = False,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Look at the log once, and sign what is there if it goes on from what was seen before. Run it now and then.

    STATE belongs on another machine, in other hands than the server's; beside it is STATE.key, which stays there.
    Exit code 1: the server shows another history, or is asked for what it cannot prove.
    """
    with server_of(site, url, token_file) as server:
        state, signer = _opened(state_file, key)
        note = server.get_bytes("/v1/audit/checkpoint").decode("utf-8", "replace")
        try:
            ask = witness.look(state, note, new_log=new_log)
            after = witness.cosigned(state, ask, note, _proof(server, ask), signer, at_s=int(time.time()))
        except witness.RefusedError as error:
            raise CommandError(
                Exit.PROBLEM, f"not signed: {error}", hint=f"{state_file} keeps what was seen: leave it as it is"
            ) from error
        _write(state_file, msgspec.json.format(msgspec.json.encode(after), indent=2) + b"\n", PUBLIC_FILE)
    typer.echo(f"{ask.checkpoint.origin}: {ask.checkpoint.size} entries seen and signed")


def _save(parts: Iterator[bytes], file: Path) -> int:
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


def _opened(state_file: Path, key: str | None) -> tuple[witness.State, Signer]:
    """The witness's state and key, both made if there is no state yet. Raises CommandError."""
    key_file = state_file.with_name(f"{state_file.name}.key")
    if state_file.exists():
        state = _state(state_file)
        if key is not None and _public(key).text() != state.log_key:
            raise CommandError(Exit.USAGE, "--key is not the key that this witness knows", hint="it never changes it")
        return state, _parsed(Signer.parse, _text(key_file), key_file)
    if key is None:
        raise CommandError(Exit.USAGE, f"{state_file} is not there", hint="begin with --key: the server's audit.pub")
    signer = Signer(WITNESS_NAME.format(secrets.token_hex(8)), secrets.token_bytes(KEY_BYTES), COSIGNATURE)
    _write(key_file, signer.text().encode(), 0o600)
    return witness.State(_public(key).text(), signer.verifier.text(), {}), signer


def _proof(server: Server, ask: witness.Ask) -> list[bytes]:
    old, new = ask.old, ask.checkpoint
    if old is None or old.size == new.size:
        return []
    log = audit.log_number(new.origin)
    document = server.get("/v1/audit/consistency", {"old_size": old.size, "new_size": new.size, "log": log})
    hashes = answers.read(document, answers.Consistency).hashes
    try:
        return [base64.b64decode(each, validate=True) for each in hashes]
    except ValueError as error:
        raise witness.RefusedError("the proof is no hashes") from error


def _state(path: Path) -> witness.State:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(witness.STATE_BYTES_MAX), type=witness.State)
    except OSError as error:
        _unusable(path, error.strerror or "")
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        _unusable(path, f"no state of a witness: {shown(error)}")


def _witnessed(state: witness.State) -> Witnessed:
    return Witnessed(tuple(state.seen.values()), _parsed(Verifier.parse, state.key, Path("the witness's state")))


def _public(text: str) -> Verifier:
    """A key as it is, or from its file. Raises CommandError."""
    if "+" in text:
        return _parsed(Verifier.parse, text, Path("--key"))
    return _parsed(Verifier.parse, _text(Path(text)), Path(text))


def _parsed(parse: Callable[[str], T], text: str, path: Path) -> T:
    try:
        return parse(text)
    except NoteError as error:
        _unusable(path, str(error))


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(KEY_CHARS_MAX)
    except (OSError, UnicodeDecodeError) as error:
        _unusable(path, shown(error))


def _unusable(path: Path, why: str) -> NoReturn:
    raise CommandError(Exit.USAGE, f"{path}: {why}")


def _write(path: Path, data: bytes, mode: int) -> None:
    try:
        write_durably(path, data, mode=mode)
    except OSError as error:
        raise CommandError(Exit.USAGE, f"{path} cannot be written: {error.strerror}") from error


def _document(verdict: Verdict) -> Json:
    checkpoint = verdict.checkpoint
    return {
        "passed": verdict.passed,
        "claims": [
            {"claim": each.claim, "result": each.result, "detail": each.detail, "index": each.index}
            for each in verdict.findings
        ],
        "entries": verdict.entries,
        "unfinished": verdict.unfinished,
        "origin": None if checkpoint is None else checkpoint.origin,
        "size": None if checkpoint is None else checkpoint.size,
    }
