"""A witness of the audit log: it remembers the last checkpoint it saw, and signs only one that goes on from there.

It proves what the server cannot prove of itself: that nobody took away from the end, or wrote another history. So it
and its state belong on another machine, in other hands. Values only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from msgspec import Meta, Struct

from fleet_server.access import notes, tlog
from fleet_server.access.notes import NOTE_CHARS_MAX, Checkpoint, NoteError, Signer, Verifier

STATE_BYTES_MAX: Final = 256 * 1024
LOGS_MAX: Final = 1_000


class State(Struct, frozen=True, tag="audit-witness", tag_field="t"):
    """The file of a witness: nothing in it is secret, and who can change it can make the witness forget.

    ``log_key``: the server's public key; ``key``: the witness's own; ``seen``: origin -> last checkpoint, cosigned.
    """

    log_key: str
    key: str
    seen: Annotated[dict[str, Annotated[str, Meta(max_length=NOTE_CHARS_MAX)]], Meta(max_length=LOGS_MAX)]


class RefusedError(Exception):
    """The witness does not sign that."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What has to be proved before *checkpoint* is signed; ``old`` None: nothing, it is the first of its log."""

    checkpoint: Checkpoint
    old: Checkpoint | None


def look(state: State, note: str, *, new_log: bool) -> Ask:
    """Decide what the server has to prove.

    Raises:
        RefusedError: not signed by the server, fewer entries than were seen, another root of the same size, or a log
            that was never seen, unless it is the first one or *new_log* is set.
    """
    try:
        notes.opened(note, Verifier.parse(state.log_key))
        checkpoint = notes.checkpoint_of(note)
    except NoteError as error:
        raise RefusedError(f"the checkpoint is not the server's: {error}") from error
    seen = state.seen.get(checkpoint.origin)
    if seen is None:
        if state.seen and not new_log:
            raise RefusedError(
                f"another log, {checkpoint.origin}: ask the operators why, and keep what was seen of the one before"
            )
        return Ask(checkpoint, None)
    old = notes.checkpoint_of(seen)
    if checkpoint.size < old.size:
        raise RefusedError(f"{old.size} entries were seen, and now there are {checkpoint.size}")
    if checkpoint.size == old.size and checkpoint.root != old.root:
        raise RefusedError(f"another log of the same {old.size} entries")
    return Ask(checkpoint, old)


def cosigned(state: State, ask: Ask, note: str, proof: Sequence[bytes], signer: Signer, *, at_s: int) -> State:
    """The state once the proof was checked and the checkpoint signed. Raises RefusedError: it does not hold."""
    new, old = ask.checkpoint, ask.old
    if old is not None and not tlog.extends(old.size, old.root, new.size, new.root, proof):
        raise RefusedError(f"the {new.size} entries do not begin with the {old.size} that were seen")
    return State(state.log_key, state.key, {**state.seen, new.origin: signer.cosign(note, at_s=at_s)})
