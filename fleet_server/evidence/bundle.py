"""One file that a stranger can check: which members a bundle has, and what is in them. Values only; BUNDLE.md says it
to who writes a verifier, ``verify.py`` is one.

It is made in two steps, because the log has an entry of the export, and the bundle has that entry: :func:`content` is
all that is put in, and its digest goes into each piece's ``evidence.exported``; :func:`proofs` comes after it.

Rule: names are ours, made of upload ids and numbers; what a device calls its file stands in its manifest only.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from fleet_server.evidence.pieces import Piece

VERSION: Final = 1
PIECES_MAX: Final = 2_000
EVENTS_MAX: Final = 10_000
"""Of one piece."""
BATCHES_MAX: Final = 20_000
"""Of a journal for one piece: a day, if something happens every five seconds. ``verify.py`` takes more."""
ANCHORS_MAX: Final = 50
"""Of one log."""
SMALL_BYTES_MAX: Final = 64 * 1024 * 1024
"""All members but originals: they are in memory while a bundle is made."""
INDEX: Final = "index.json"
ORIGINAL: Final = "original"
_LATER: Final = re.compile(r"index\.json|log/.*|.*/events\.ndjson")
_ENCODER: Final = msgspec.json.Encoder(order="sorted")


class Original(NamedTuple):
    """A member that is read from the content store when its turn comes."""

    sha256: str
    size: int


class Journal(NamedTuple):
    """Part of a device's journal: number and payload of each batch, as received, ascending."""

    device: str
    life: str
    batches: Sequence[tuple[int, bytes]]


class Proved(NamedTuple):
    """An event: the log's entry, and what proves it to be under the log's checkpoint, nearest first."""

    log: int
    entry: bytes
    proof: Sequence[bytes]


class Anchor(NamedTuple):
    """A checkpoint from before the export's. ``proof``: that the log goes on from there. ``token``: a TimeStampResp
    over the note's bytes, None if it has none.
    """

    note: str
    proof: Sequence[bytes]
    token: bytes | None = None


class Covered(NamedTuple):
    """One log's checkpoint at the export, and its anchors."""

    log: int
    note: str
    anchors: Sequence[Anchor]


@dataclass(frozen=True, slots=True)
class Trust:
    """Keys as the server names them, for who compares; a verifier is given them by somebody else. ``roots``: PEM.
    ``signers``: of receipts, ``KEYID ALGORITHM BASE64``.
    """

    roots: tuple[str, ...]
    log_key: str
    tsa: tuple[str, ...] = ()
    witnesses: tuple[str, ...] = ()
    signers: tuple[str, ...] = ()


def content(
    pieces: Sequence[Piece],
    journals: Sequence[Journal],
    receipts: Sequence[bytes],
    trust: Trust,
    texts: Mapping[str, str],
) -> dict[str, bytes | Original]:
    """All that is put in. *receipts*: signed, as devices get them. *texts*: the reports and README.txt."""
    made: dict[str, bytes | Original] = {name: text.encode() for name, text in texts.items()}
    made["trust.json"] = _json({"t": "trust", "v": VERSION, **msgspec.to_builtins(trust)})
    for piece in pieces:
        at = f"pieces/{piece.piece}/"
        made[at + ORIGINAL] = Original(piece.sha256, piece.size)
        made[at + "manifest.dsse.json"] = piece.envelope
        made[at + "certificate.pem"] = piece.certificate.encode()
    made |= {f"receipts/{number}.dsse.json": receipt for number, receipt in enumerate(receipts, 1)}
    for number, journal in enumerate(journals, 1):
        head = {"t": "journal", "v": VERSION, "device": journal.device, "life": journal.life}
        lines = ({"seq": seq, "payload": _b64(payload)} for seq, payload in journal.batches)
        made[f"journal/{number}.ndjson"] = _lines([head, *lines])
    return made


def content_digest(members: Mapping[str, bytes | Original]) -> str:
    """Of all that is put in: SHA-256 over a line ``SHA-256  NAME`` for each, by name."""
    listed = "".join(f"{_digest(members[name])}  {name}\n" for name in sorted(members) if not _LATER.fullmatch(name))
    return hashlib.sha256(listed.encode()).hexdigest()


def proofs(histories: Mapping[str, Sequence[Proved]], logs: Iterable[Covered]) -> dict[str, bytes]:
    """What the log says of it. *histories*: upload id -> its events by number, the export the last."""
    made: dict[str, bytes] = {}
    for piece, events in histories.items():
        lines = ({"entry": _b64(each.entry), "proof": [_b64(one) for one in each.proof]} for each in events)
        made[f"pieces/{piece}/events.ndjson"] = _lines(lines)
    for log in logs:
        made[f"log/{log.log}/checkpoint"] = log.note.encode()
        for number, anchor in enumerate(log.anchors, 1):
            at = f"log/{log.log}/anchors/{number}/"
            made[at + "checkpoint"] = anchor.note.encode()
            made[at + "consistency.json"] = _json({"hashes": [_b64(one) for one in anchor.proof]})
            if anchor.token is not None:
                made[at + "time.tsr"] = anchor.token
    return made


def whole(export: str, members: Mapping[str, bytes | Original]) -> dict[str, bytes | Original]:
    """The bundle: the index, which has the SHA-256 of every other member, and these by name."""
    listed = {name: _digest(member) for name, member in members.items()}
    index = _json({"t": "bundle", "v": VERSION, "export": export, "members": listed})
    return {INDEX: index, **{name: members[name] for name in sorted(members)}}


def small_bytes(members: Mapping[str, bytes | Original]) -> int:
    """What is in memory of them."""
    return sum(len(member) for member in members.values() if isinstance(member, bytes))


def _digest(member: bytes | Original) -> str:
    return hashlib.sha256(member).hexdigest() if isinstance(member, bytes) else member.sha256


def _lines(messages: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(_json(each) for each in messages)


def _json(message: Mapping[str, Any]) -> bytes:
    return _ENCODER.encode(message) + b"\n"


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
