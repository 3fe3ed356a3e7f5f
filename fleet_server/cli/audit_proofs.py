"""What ``fieldfleet audit verify`` and ``witness`` do: proofs, and the files of a witness."""

import base64
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn, TypeVar

import msgspec
from rich.console import Group
from rich.table import Table
from rich.text import Text

from broker_config.text import shown
from fleet_server.access import audit, export, witness
from fleet_server.access.export import LINE_BYTES_MAX, Result, Verdict, Witnessed
from fleet_server.access.notes import COSIGNATURE, KEY_BYTES, Checkpoint, NoteError, Signer, Verifier
from fleet_server.adapters.files import PRIVATE_FILE, write_durably
from fleet_server.cli import answers
from fleet_server.cli.server import CommandError, Exit, Json, Server

KEY_CHARS_MAX: Final = 1_000
PUBLIC_FILE: Final = 0o644
WITNESS_NAME: Final = "fieldfleet/witness/{}"

T = TypeVar("T")


def verdict_of(file: Path, *, key: str | None, state_file: Path | None) -> Verdict:
    """Check an export; of a large one a line is in memory. Raises CommandError: a file cannot be used."""
    trusted = None if key is None else public_key(key)
    seen = None if state_file is None else _witnessed(state_of(state_file))
    try:
        with file.open("rb") as lines:
            return export.verify(iter(lambda: lines.readline(LINE_BYTES_MAX + 2), b""), key=trusted, witness=seen)
    except OSError as error:
        _unusable(file, error.strerror or "")


def table(found: Verdict) -> Group:
    """One line a claim, and what it is about."""
    lines = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("claim", "result", "first fault", "detail"):
        lines.add_column(name, overflow="fold")
    for each in found.findings:
        style = {Result.PASS: "green", Result.FAIL: "bold red", Result.SKIPPED: "bold yellow"}[each.result]
        index = "" if each.index is None else f"entry {each.index}"
        lines.add_row(Text(each.claim), Text(each.result, style=style), Text(index), Text(shown(each.detail)))
    origin = "no checkpoint" if found.checkpoint is None else shown(found.checkpoint.origin)
    unfinished = f"; {found.unfinished} intents without an outcome" if found.unfinished else ""
    return Group(lines, Text(f"{'PASS' if found.passed else 'FAIL'}  {found.entries} entries{unfinished}  {origin}"))


def document(verdict: Verdict) -> Json:
    """The same for programs."""
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


def look_once(server: Server, state_file: Path, key: str | None, *, new_log: bool) -> Checkpoint:
    """Sign what the server shows, and keep it. Raises CommandError: it is refused, and nothing is changed."""
    state, signer = _opened(state_file, key)
    note = server.get_bytes("/v1/audit/checkpoint").decode("utf-8", "replace")
    try:
        ask = witness.look(state, note, new_log=new_log)
        after = witness.cosigned(state, ask, note, _proof(server, ask), signer, at_s=int(time.time()))
    except witness.RefusedError as error:
        hint = f"{state_file} keeps what was seen: leave it as it is"
        raise CommandError(Exit.PROBLEM, f"not signed: {error}", hint=hint) from error
    _write(state_file, msgspec.json.format(msgspec.json.encode(after), indent=2) + b"\n", PUBLIC_FILE)
    return ask.checkpoint


def _opened(state_file: Path, key: str | None) -> tuple[witness.State, Signer]:
    """The witness's state and key, both made if there is no state yet. Raises CommandError."""
    key_file = state_file.with_name(f"{state_file.name}.key")
    if state_file.exists():
        state = state_of(state_file)
        if key is not None and public_key(key).text() != state.log_key:
            raise CommandError(Exit.USAGE, "--key is not the key that this witness knows", hint="it never changes it")
        return state, _parsed(Signer.parse, _text(key_file), key_file)
    if key is None:
        raise CommandError(Exit.USAGE, f"{state_file} is not there", hint="begin with --key: the server's audit.pub")
    signer = Signer(WITNESS_NAME.format(secrets.token_hex(8)), secrets.token_bytes(KEY_BYTES), COSIGNATURE)
    _write(key_file, signer.text().encode(), PRIVATE_FILE)
    return witness.State(public_key(key).text(), signer.verifier.text(), {}), signer


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


def state_of(path: Path) -> witness.State:
    """The file of a witness. Raises CommandError."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(witness.STATE_BYTES_MAX), type=witness.State)
    except OSError as error:
        _unusable(path, error.strerror or "")
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        _unusable(path, f"no state of a witness: {shown(error)}")


def _witnessed(state: witness.State) -> Witnessed:
    return Witnessed(tuple(state.seen.values()), _parsed(Verifier.parse, state.key, Path("the witness's state")))


def public_key(text: str) -> Verifier:
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
