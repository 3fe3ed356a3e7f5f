#!/usr/bin/env python3
"""Checks a bundle of evidence: one file, offline, and nobody has to be believed but the keys that are given.

    python verify.py BUNDLE.zip --root device-root.crt --log-key audit.pub --witness witness.pub --tsa-ca tsa-root.crt

Says PASS, FAIL or NOT CHECKED of each claim. Needs Python 3.11 and `cryptography` 46; no network, and writes nothing.
Exit codes: 0 all was checked and holds; 1 something does not hold; 3 nothing failed, but something was not checked;
2 used wrongly, or a file of yours cannot be read. What each claim means, and what it does not: BUNDLE.md.
"""

import argparse
import base64
import hashlib
import json
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from itertools import groupby, islice
from pathlib import Path
from typing import Any, BinaryIO

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

PASS, FAIL, UNCHECKED = "PASS", "FAIL", "NOT CHECKED"
MEMBERS_MAX, DIRECTORY_BYTES_MAX, SMALL_BYTES_MAX, LINES_BYTES_MAX = 20_000, 4 << 20, 4 << 20, 256 << 20
LINE_BYTES_MAX, BATCH_BYTES_MAX, ZIP_EXTRA_MAX, GAP_OFF_MS_MAX = 300_000, 1 << 20, 60, 50
GENESIS, MANIFEST = "0" * 64, "application/vnd.fieldfleet.manifest.v1+json"
NAME = re.compile(
    r"index\.json|README\.txt|trust\.json|report\.(txt|html)|journal/[1-9][0-9]{0,3}\.ndjson"
    r"|pieces/[0-9a-f]{32}/(original|manifest\.dsse\.json|certificate\.pem|receipt\.dsse\.json|events\.ndjson)"
    r"|log/[0-9]{1,16}/(checkpoint|anchors/[1-9][0-9]?/(checkpoint|consistency\.json|time\.tsr))"
)
LATER = re.compile(r"index\.json|log/.*|.*/events\.ndjson")  # made after the export was entered in the log
SHA256, PKCS9 = bytes.fromhex("608648016503040201"), bytes.fromhex("2a864886f70d0109")  # object identifiers in DER
SHA = {SHA256: hashes.SHA256, SHA256[:-1] + b"\2": hashes.SHA384, SHA256[:-1] + b"\3": hashes.SHA512}
CONTENT_TYPE, MESSAGE_DIGEST, TST_INFO = PKCS9 + b"\3", PKCS9 + b"\4", PKCS9 + b"\x10\1\4"


class NotSoError(Exception):
    """Why a claim does not hold (FAIL), or can be neither confirmed nor denied (UNCHECKED)."""


def need(holds: object, why: str, result: str = FAIL) -> None:
    if not holds:
        raise NotSoError(why, result)


def judged(claim: str, check: Callable[[], str]) -> tuple[str, str, str]:
    """Result, claim and detail of a check, whatever the bundle does to it."""
    try:
        return PASS, claim, check()
    except NotSoError as error:
        return error.args[1], claim, error.args[0]
    except (InvalidSignature, VerificationError) as error:
        return FAIL, claim, f"a signature, or a certificate, is of something else or by another key {error}"
    except Exception as error:  # noqa: BLE001 - nothing that stands in a file may stop the other claims
        return FAIL, claim, f"not of this form: {type(error).__name__} {error}"


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def unb64(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    need(base64.b64encode(data).decode() == text, "base64 that is not canonical")
    return data


class Bundle:
    """A zip whose members are stored: they are read in place, nothing is ever unpacked, no name is ever a path."""

    def __init__(self, file: BinaryIO, keys: argparse.Namespace) -> None:
        file.seek(max(0, file.seek(0, 2) - 98))
        tail = file.read()
        need(tail[-22:-18] == b"PK\5\6" and tail[-2:] == b"\0\0", "not a zip, or something stands behind its end")
        count, length = struct.unpack("<HI", tail[-12:-6])
        large = struct.unpack("<Q", tail[-58:-50])[0] if tail[-42:-38] == b"PK\6\7" else length
        need(count <= MEMBERS_MAX and length == large <= DIRECTORY_BYTES_MAX, f"more than {MEMBERS_MAX} members")
        self.zip, self.keys, self.members, end = zipfile.ZipFile(file), keys, dict[str, zipfile.ZipInfo](), 0
        for info in sorted(self.zip.infolist(), key=lambda each: each.header_offset):
            name, offset = info.orig_filename, info.header_offset
            need(NAME.fullmatch(name) and name not in self.members, f"member {name!r}: none of a bundle, or twice")
            need(info.compress_type == 0 and info.compress_size == info.file_size, f"{name}: compressed")
            need(not info.flag_bits & 1 and info.external_attr >> 28 in (0, 8), f"{name}: a link, or encrypted")
            need(0 <= offset - end <= ZIP_EXTRA_MAX, f"before {name}: bytes of no member, or of two")
            end = offset + 30 + len(name) + info.file_size
            self.members[name] = info
        need(len(self.members) == count and 0 <= self.zip.start_dir - end <= ZIP_EXTRA_MAX, "a wrong directory")
        self.index = json.loads(self.small("index.json"))

    def open(self, name: str, bytes_max: int) -> zipfile.ZipExtFile:
        need(name in self.members and self.members[name].file_size <= bytes_max, f"{name}: missing, or too large")
        return self.zip.open(self.members[name])  # type: ignore[return-value]

    def small(self, name: str) -> bytes:
        with self.open(name, SMALL_BYTES_MAX) as file:
            return file.read()

    def lines(self, name: str) -> Iterator[dict[str, Any]]:
        with self.open(name, LINES_BYTES_MAX) as file:
            while line := file.readline(LINE_BYTES_MAX):
                need(line.endswith(b"\n"), f"{name}: a line that is too long, or cut short")
                yield json.loads(line)


def root_of(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1."""
    half = 1 << (len(leaves) - 1).bit_length() >> 1
    return sha256(b"\1", root_of(leaves[:half]), root_of(leaves[half:])) if half else leaves[0]


def climbed(number: int, last: int, path: list[bytes], old: bytes, new: bytes) -> tuple[bytes, bytes]:
    """The roots of the old and the new tree, from a leaf (twice the same) or from the old one's end: RFC 9162, 2.1."""
    for sibling in path:
        need(last > 0, "a proof that is too long")
        if number & 1 or number == last:
            old, new = sha256(b"\1", sibling, old), sha256(b"\1", sibling, new)
            while number and not number & 1:
                number, last = number >> 1, last >> 1
        else:
            new = sha256(b"\1", new, sibling)
        number, last = number >> 1, last >> 1
    need(last == 0, "a proof that is too short")
    return old, new


class Note:
    """A signed checkpoint (C2SP: signed-note, tlog-checkpoint, tlog-cosignature)."""

    def __init__(self, data: bytes) -> None:
        text, _, self.below = data.decode().rpartition("\n\n")
        self.data, self.text = data, text + "\n"
        self.origin, size, root = self.text.split("\n")[:3]
        self.size, self.root = int(size), unb64(root)

    def times(self, key: str) -> list[int]:
        """When *key* signed it, in ms since the epoch (0: a log's key, which does not say); empty: it did not."""
        name, mark, public = key.split("+", 2)
        kind, found = unb64(public)[0], list[int]()
        witness, verifier = kind == 4, ed25519.Ed25519PublicKey.from_public_bytes(unb64(public)[1:])
        for data in [unb64(text) for who, text in re.findall(r"(?m)^— (\S+) (\S+)$", self.below) if who == name]:
            at_s = int.from_bytes(data[4:12]) if witness else 0
            if data[:4].hex() == mark:
                said = f"cosignature/v1\ntime {at_s}\n{self.text}" if witness else self.text
                verifier.verify(data[12 if witness else 4 :], said.encode())
                found.append(at_s * 1000)
        return found


@cache
class Log:
    """The log at the export, and what was signed, witnessed or stamped of it before, as its beginning."""

    def __init__(self, bundle: Bundle, number: int) -> None:
        new, anchors = Note(bundle.small(f"log/{number}/checkpoint")), rf"(log/{number}/anchors/[0-9]+/)checkpoint"
        self.size, self.root, self.seen, notes = new.size, new.root, list[tuple[int, float, str]](), [new]
        for at in [found[1] for found in map(re.compile(anchors).fullmatch, bundle.members) if found]:
            old, proof = Note(bundle.small(at + "checkpoint")), bundle.small(at + "consistency.json")
            path, made = [unb64(each) for each in json.loads(proof)["hashes"]], (new.root, new.root)
            if 0 < old.size < new.size:  # a perfect subtree's hash is not repeated; the climb begins above its end
                path = path if old.size & (old.size - 1) else [old.root, *path]
                up = (old.size & -old.size).bit_length() - 1
                made = climbed(old.size - 1 >> up, new.size - 1 >> up, path[1:], path[0], path[0])
            same = old.origin == new.origin and 0 < old.size <= new.size and made == (old.root, new.root)
            need(same, f"its {new.size} entries do not begin with the {old.size} that were signed before")
            notes.append(old)
        for note in notes:
            own = all(
                note.origin == f"{key.split('+')[0]}/{number}" and note.times(key) for key in bundle.keys.log_key
            )
            need(own, "a checkpoint of it is not signed by the key that was given")
            for key in bundle.keys.witness:
                self.seen += [(note.size, ms, "witness " + key.split("+")[0]) for ms in note.times(key)]


def check_signed(key: Any, signature: bytes, data: bytes, digest: Any) -> None:  # noqa: ANN401 - any of several
    scheme = [ec.ECDSA(digest)] if isinstance(key, ec.EllipticCurvePublicKey) else [padding.PKCS1v15(), digest]
    key.verify(signature, data, *scheme)


def check_chain(leaf: x509.Certificate, above: list[x509.Certificate], roots: Any, ms: float) -> None:  # noqa: ANN401
    """*leaf* and all between it and one of *roots* were good then, and each may sign the one below."""
    free, then = ExtensionPolicy.permit_all(), datetime.fromtimestamp(ms / 1000, UTC)
    signs = free.require_present(x509.BasicConstraints, Criticality.AGNOSTIC, lambda _, __, e: need(e.ca, "no CA"))
    builder = PolicyBuilder().store(Store(roots)).time(then).extension_policies(ee_policy=free, ca_policy=signs)
    builder.build_client_verifier().verify(leaf, above)


def der(data: bytes, *path: int) -> list[tuple[bytes, bytes]]:
    """Elements in a row, each as its content and as a whole; with a *path*, those inside one of them, and so on."""
    found, at = list[tuple[bytes, bytes]](), 0
    while at < len(data):
        size, begin = data[at + 1], at + 2
        if size & 0x80:
            begin, size = begin + (size & 0x7F), int.from_bytes(data[begin : begin + (size & 0x7F)])
        found.append((data[begin : begin + size], data[at : begin + size]))
        at = begin + size
    need(at == len(data), "DER that is cut short")
    return der(found[path[0]][0], *path[1:]) if path else found


def stamped_ms(token: bytes, data: bytes, roots: list[x509.Certificate]) -> float:
    """When an authority saw *data*. *token*: a TimeStampResp (RFC 3161, RFC 5652)."""
    signed, status = der(token, 0, 1, 1, 0), der(token, 0, 0)[0][0]
    info, signer, certificates = der(signed[2][1], 0, 1)[0][0], der(signed[-1][1], 0, 0), der(signed[3][1], 0)
    told = {der(each, 0)[0][0]: der(each, 0, 1)[0][0] for _, each in der(signer[3][0])}
    digest, fields = SHA[der(signer[2][1], 0)[0][0]](), der(info, 0)
    made = hashes.Hash(digest)
    made.update(info)
    need(der(signed[2][1], 0)[0][0] == told[CONTENT_TYPE] == TST_INFO and status in (b"\0", b"\1"), "no time stamp")
    need(told[MESSAGE_DIGEST] == made.finalize(), "the time stamp was altered")
    same = der(fields[2][1], 0, 0)[0][0] == SHA256 and der(fields[2][1], 0)[1][0] == sha256(data)
    need(same, "the time stamp is of another checkpoint")
    ms = datetime.strptime(fields[4][0].decode()[:14] + "+0000", "%Y%m%d%H%M%S%z").timestamp() * 1000
    above = [x509.load_der_x509_certificate(each) for _, each in certificates]
    for leaf in above:
        if ExtendedKeyUsageOID.TIME_STAMPING in leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value:
            check_signed(leaf.public_key(), signer[5][0], b"\x31" + signer[3][1][1:], digest)
            check_chain(leaf, above, roots, ms)
            return ms
    raise NotSoError("the time stamp is by a key that may not stamp", FAIL)


class Piece:
    """A file: its manifest as the device signed it, and its history as the server's log has it."""

    def __init__(self, bundle: Bundle, at: str) -> None:
        self.bundle, self.at, self.upload = bundle, at, at.split("/")[1]
        self.envelope, self.pem = bundle.small(at + "manifest.dsse.json"), bundle.small(at + "certificate.pem")
        self.payload = unb64(json.loads(self.envelope)["payload"])
        self.said = json.loads(self.payload)
        self.segment = self.said["segment"] or {"number": 1, "prev": GENESIS, "last": True, "recording": ""}
        number, self.recording = int(self.segment["number"]), str(self.segment["recording"] or self.upload)
        self.place = str(self.said["device"]), self.recording, number, self.upload

    def events(self) -> Iterator[tuple[bytes, dict[str, Any], list[bytes]]]:
        for line in self.bundle.lines(self.at + "events.ndjson"):
            yield (raw := unb64(line["entry"])), json.loads(raw), [unb64(each) for each in line["proof"]]

    def arrived(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the server entered when it had this very file: that it came, and that it was read again."""
        came, read = (entry for _, entry, _ in islice(self.events(), 2))
        what = [came["action"], came["data"]["envelope_sha256"], came["data"]["certificate_sha256"], read["action"]]
        same = ["evidence.received", sha256(self.envelope).hex(), sha256(self.pem).hex(), "evidence.verified"]
        need(what == same and read["data"]["sha256"] == self.said["sha256"], "the log tells of another file")
        return came, read


@cache
def journals(bundle: Bundle) -> dict[tuple[str, str], dict[int, str]]:
    """SHA-256 of each batch by its number, of each device's journal; each holds the SHA-256 of the one before."""
    found = dict[tuple[str, str], dict[int, str]]()
    for lines in [bundle.lines(name) for name in bundle.members if name.startswith("journal/")]:
        head, last = next(lines), 0
        digests = found.setdefault((head["device"], head["life"]), {0: GENESIS})
        for payload in (unb64(line["payload"]) for line in lines):
            packed = payload.startswith(b"\x78")
            batch = json.loads(zlib.decompressobj().decompress(payload, BATCH_BYTES_MAX) if packed else payload)
            follows = batch["seq"] > last and digests.get(batch["seq"] - 1, batch["prev"]) == batch["prev"]
            need(follows and batch["life"] == head["life"], f"its journal was altered before batch {batch['seq']}")
            digests[last := batch["seq"]] = sha256(payload).hex()
    return found


def is_as_exported(pieces: list[Piece]) -> str:
    bundle, found = pieces[0].bundle, dict[str, str]()
    for name in bundle.members.keys() - {"index.json"}:
        with bundle.open(name, sys.maxsize) as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    wrong = sorted({name for name, _ in found.items() ^ bundle.index["members"].items()})
    need(not wrong, f"damaged, missing or added: {', '.join(wrong)}")
    listed = "".join(f"{found[name]}  {name}\n" for name in sorted(found) if not LATER.fullmatch(name))
    for piece in pieces:
        *_, (_, entry, _) = piece.events()
        need(entry["data"]["content_sha256"] == sha256(listed.encode()).hex(), "the log has another content of it")
    return (
        f"{len(found)} members; the log has the SHA-256 of all that was put in (reports are the server's own words)"
    )


class Recording:
    """Its files in their order, and what is claimed of them."""

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces, self.bundle, self.keys = pieces, pieces[0].bundle, pieces[0].bundle.keys

    def unaltered(self) -> str:
        for piece in self.pieces:
            total, leaves, said = hashlib.sha256(), list[bytes](), piece.said
            with piece.bundle.open(piece.at + "original", said["size"]) as file:
                while part := file.read(sorted((1 << 14, said["chunk_bytes"], 1 << 20))[1]):
                    total.update(part)
                    leaves.append(sha256(b"\0", part))
            same = (total.hexdigest(), root_of(leaves).hex()) == (said["sha256"], said["root"])
            named = sha256(piece.payload).hex()[:32] == piece.upload
            need(same and named, f"{piece.upload} is not what its manifest says")
        return f"{len(self.pieces)} file(s), each with the SHA-256 of its signed manifest"

    def from_that_device(self) -> str:
        for piece in self.pieces:
            envelope, (leaf, *above) = json.loads(piece.envelope), x509.load_pem_x509_certificates(piece.pem)
            kind, end, (came, _) = envelope["payloadType"], piece.said["end"], piece.arrived()
            message = f"DSSEv1 {len(kind)} {kind} {len(piece.payload)} ".encode() + piece.payload
            check_signed(leaf.public_key(), unb64(envelope["signatures"][0]["sig"]), message, hashes.SHA256())
            same = [each.value for each in leaf.subject] == [piece.said["device"]] and kind == MANIFEST
            need(same, "signed with the certificate of another device")
            doubts = came["data"].get("doubts")
            need(not doubts, f"the server noted of the certificate: {doubts}")
            need(self.keys.root, "signed by the certificate beside it; whose that is needs --root", UNCHECKED)
            check_chain(leaf, above, self.keys.root, came["at_ms"] if end["src"] == "none" else end["t_ms"])
        return f"signed by its key (certificate {leaf.serial_number:032x})"

    def complete(self) -> str:
        before, gaps, journal = None, 0, {}
        for number, piece in enumerate(self.pieces, 1):
            segment, said = piece.segment, piece.said
            need(segment["number"] == number, f"segment {number} is not here")
            prev = sha256(before.payload).hex() if before else GENESIS
            need(segment["prev"] == prev, f"segment {number} follows another one")
            if before:
                end, begin, told = before.said["end"], said["begin"], segment["gap_ms"]
                gap = begin["mono"] - end["mono"] if begin["boot"] == end["boot"] else told or -GAP_OFF_MS_MAX - 1
                need(abs(gap - told) <= GAP_OFF_MS_MAX, f"before segment {number}: another gap than the device tells")
                gaps += told > 0
            need(number == len(self.pieces) or not segment["last"], f"others follow segment {number}, the last one")
            first, last = said["journal"]["first"], said["journal"]["last"]
            if journal := journals(self.bundle).get((said["device"], said["journal"]["life"]), {}):
                missing = next((batch for batch in range(first, last + 1) if batch not in journal), None)
                need(missing is None, f"batch {missing} of the device's journal is not here")
                head = said["journal"].get("head", journal[last])
                need(head == journal[last], "the journal is not the one that the device signed")
            before = piece
        need(segment["last"], "it ended abnormally: no segment says that it is the last")
        need(journal, "its segments are, but the server had none of the device's journal", UNCHECKED)
        return f"segments 1 to {number}, {gaps} gap(s), which the device told; its journal has no holes"

    def existed_by_then(self) -> str:
        proofs, begin, end = list[tuple[float, str]](), self.pieces[0].said["begin"], self.pieces[-1].said["end"]
        for _, read in (piece.arrived() for piece in self.pieces):
            log, at, found = f"log/{read['log']}/", read["index"], list(Log(self.bundle, read["log"]).seen)
            for name in [
                n for n in self.bundle.members if self.keys.tsa_ca and n.startswith(log) and n.endswith(".tsr")
            ]:
                note = Note(self.bundle.small(name.replace("time.tsr", "checkpoint")))
                ms = stamped_ms(self.bundle.small(name), note.data, self.keys.tsa_ca)
                found.append((note.size, ms, "a time stamp"))
            later = [(ms, who) for size, ms, who in found if size > at]
            need(later, "no witness and no time stamp of those given is of it (--witness, --tsa-ca)", UNCHECKED)
            proofs.append(min(later))
        then, first, last = (
            datetime.fromtimestamp(ms / 1000, UTC) for ms in (max(proofs)[0], begin["t_ms"], end["t_ms"])
        )
        return f"{then:%F %T} UTC, by {max(proofs)[1]}; by its own clock ({end['src']}, +-{end['unc_ms']} ms) {first:%F %T} to {last:%F %T}"

    def log_not_rewritten(self) -> str:
        need(self.keys.log_key, "whose log it is needs --log-key", UNCHECKED)
        seen = True
        for piece in self.pieces:
            for raw, entry, path in piece.events():
                log, index, leaf = Log(self.bundle, entry["log"]), entry["index"], sha256(b"\0", raw)
                same = 0 <= index < log.size and climbed(index, log.size - 1, path, leaf, leaf)[1] == log.root
                need(same, f"{piece.upload}: an event is not in the log")
            _, read = piece.arrived()
            seen &= any(size > read["index"] for size, _, _ in Log(self.bundle, read["log"]).seen)
        need(seen, "the server's signature holds; no witness given saw it, so it may be rewritten", UNCHECKED)
        return "every event is in it, and it goes on from what the witness saw"

    def no_events_hidden(self) -> str:
        for piece in self.pieces:
            prev = GENESIS
            for number, (raw, entry, _) in enumerate(piece.events()):
                told = entry["subject"], entry["data"]["number"], entry["data"]["prev"]
                need(
                    told == (piece.upload, str(number), prev),
                    f"{piece.upload}: event {number} is not here, or another",
                )
                prev = sha256(raw).hex()
            ends = (entry["action"], entry["data"]["export"]) == ("evidence.exported", self.bundle.index["export"])
            need(ends, f"{piece.upload}: its history does not end with this export")
        return "the events of each file are numbered from 0 without holes, and the last one is this export"


def verdicts(file: BinaryIO, keys: argparse.Namespace) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """What is judged, and how: the bundle itself, then each recording. A claim is called as its method is."""
    pieces = list[Piece]()

    def is_readable() -> str:
        bundle, name = Bundle(file, keys), "manifest.dsse.json"
        found = [Piece(bundle, each.removesuffix(name)) for each in bundle.members if each.endswith("/" + name)]
        pieces.extend(sorted(found, key=lambda piece: piece.place))
        return f"{len(pieces)} files of {len({piece.place[:2] for piece in pieces})} recordings"

    yield "The bundle", [judged("readable", is_readable), judged("as exported", lambda: is_as_exported(pieces))]
    for (device, name), group in groupby(pieces, key=lambda piece: piece.place[:2]):
        one = Recording(list(group))
        checks = one.unaltered, one.from_that_device, one.complete, one.existed_by_then, one.log_not_rewritten
        claims = [(check.__name__.replace("_", " "), check) for check in (*checks, one.no_events_hidden)]
        yield f"Recording {name} of device {device}", [judged(claim, check) for claim, check in claims]


def main(argv: list[str] | None = None) -> int:
    def trusted(path: str) -> list[Any]:
        text = Path(path).read_text()
        return x509.load_pem_x509_certificates(text.encode()) if "BEGIN" in text else [text.strip()]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    for name in ("--root", "--log-key", "--witness", "--tsa-ca"):
        parser.add_argument(name, type=trusted, action="extend", default=[], metavar="FILE")
    results = set[str]()
    try:
        keys = parser.parse_args(argv)
        file = keys.bundle.open("rb")
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    with file:
        for heading, lines in verdicts(file, keys):
            for text in [heading, *(f"  {result:<12} {claim:<22} {detail}" for result, claim, detail in lines)]:
                print("".join(c if c.isprintable() else "?" for c in text[:400]))
            results |= {result for result, _, _ in lines}
    code = 1 if FAIL in results else 3 if UNCHECKED in results else 0
    print({0: "All was checked, and holds.", 1: "Something does not hold.", 3: "Not everything was checked."}[code])
    return code


if __name__ == "__main__":
    sys.exit(main())
