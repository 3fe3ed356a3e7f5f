#!/usr/bin/env python3
"""Checks a bundle of evidence: one file, offline, and nobody has to be believed but the keys that are given.

    python verify.py BUNDLE.zip --root device-root.crt --log-key audit.pub --witness witness.pub --tsa-ca tsa-root.crt

Says PASS, FAIL or NOT CHECKED of each claim; BUNDLE.md says what each means. Needs Python 3.11 and `cryptography` 46.
Exit codes: 0 all was checked and holds; 1 something does not; 3 nothing failed, but not all was checked; 2 wrong use.
"""

import argparse
import base64
import hashlib
import json
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache, cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store

PASS, FAIL, UNCHECKED = "PASS", "FAIL", "NOT CHECKED"
DIRECTORY_BYTES_MAX, SMALL_BYTES_MAX, LINES_BYTES_MAX = 4 << 20, 4 << 20, 256 << 20
LINE_BYTES_MAX, BATCH_BYTES_MAX, ZIP_EXTRA_MAX, GAP_OFF_MS_MAX = 300_000, 1 << 20, 60, 50
GENESIS, MANIFEST, TIME = "0" * 64, "application/vnd.fieldfleet.manifest.v1+json", "%Y-%m-%d %H:%M:%S UTC"
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9.]{0,31}(/[a-z0-9][a-z0-9.]{0,31}){0,4}")  # no way out of a directory
LATER = re.compile(r"index\.json|log/\d+/(anchors/\d+/)?(checkpoint|consistency\.json|time\.tsr)|.*/events\.ndjson")
SHA256, PKCS9 = bytes.fromhex("608648016503040201"), bytes.fromhex("2a864886f70d0109")  # object identifiers in DER
SHA = {SHA256[:-1] + bytes([n]): h for n, h in enumerate((hashes.SHA256(), hashes.SHA384(), hashes.SHA512()), 1)}
MAY_STAMP = x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.3.6.1.5.5.7.3.8")])


class NotSoError(Exception):
    """Why a claim does not hold (FAIL), or can be neither confirmed nor denied (UNCHECKED)."""


def need(holds: object, why: str, result: str = FAIL) -> None:
    if not holds:
        raise NotSoError(why, result)


def judged(check: Callable[[], str]) -> tuple[str, str, str]:
    """Result, claim and detail of a check, whatever the bundle does to it; a claim is called as its check is."""
    claim = check.__name__.replace("_", " ")
    try:
        return PASS, claim, check()
    except NotSoError as error:
        return error.args[1], claim, error.args[0]
    except Exception as error:  # noqa: BLE001 - nothing that stands in a file may stop the other claims
        return FAIL, claim, f"not of this form, or signed by another key: {type(error).__name__} {error}"


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def unb64(text: str) -> bytes:
    need(base64.b64encode(data := base64.b64decode(text, validate=True)).decode() == text, "base64, not canonical")
    return data


class Bundle:
    """A zip whose members are stored: they are read in place, nothing is ever unpacked, no name is ever a path."""

    def __init__(self, file: BinaryIO, keys: argparse.Namespace) -> None:
        file.seek(max(0, file.seek(0, 2) - 98))
        tail = file.read()
        need(tail[-22:-18] == b"PK\5\6" and tail[-2:] == b"\0\0", "not a zip, or something stands behind its end")
        length, large = (int.from_bytes(tail[at : at + size], "little") for at, size in ((-10, 4), (-58, 8)))
        need(length <= DIRECTORY_BYTES_MAX and (tail[-42:-38] != b"PK\6\7" or large == length), "too many members")
        self.zip, self.keys, self.members, end = zipfile.ZipFile(file), keys, dict[str, zipfile.ZipInfo](), 0
        for info in sorted(self.zip.infolist(), key=lambda each: each.header_offset):
            name, offset = info.orig_filename, info.header_offset
            need(NAME.fullmatch(name) and name not in self.members, f"member {name!r}: no name of a member, or twice")
            stored = info.compress_type == 0 and info.compress_size == info.file_size and not info.flag_bits & 1
            need(stored and info.external_attr >> 28 in (0, 8), f"{name}: compressed, encrypted, or a link")
            need(0 <= offset - end <= (ZIP_EXTRA_MAX if end else 0), f"before {name}: bytes of no member, or of two")
            end = offset + 30 + len(name) + info.file_size
            self.members[name] = info
        need(0 <= self.zip.start_dir - end <= ZIP_EXTRA_MAX, "behind the members: bytes of none")
        self.index = json.loads(self.small("index.json"))
        need((self.index["t"], self.index["v"]) == ("bundle", 1), "a bundle of another version")

    def open(self, name: str, bytes_max: int) -> IO[bytes]:
        need(name in self.members and self.members[name].file_size <= bytes_max, f"{name}: missing, or too large")
        return self.zip.open(self.members[name])

    def small(self, name: str) -> bytes:
        return self.open(name, SMALL_BYTES_MAX).read()

    def digest(self, name: str) -> str:
        return hashlib.file_digest(self.open(name, sys.maxsize), "sha256").hexdigest()  # type: ignore[arg-type]

    def lines(self, name: str) -> Iterator[dict[str, Any]]:
        with self.open(name, LINES_BYTES_MAX) as file:
            while line := file.readline(LINE_BYTES_MAX):
                need(line.endswith(b"\n"), f"{name}: a line that is too long, or cut short")
                yield json.loads(line)

    @cached_property
    def journals(self) -> dict[tuple[str, str], dict[int, str]]:
        """SHA-256 of each batch by its number, of each device's journal; each holds the SHA-256 of the one before."""
        found = dict[tuple[str, str], dict[int, str]]()
        for lines in [self.lines(name) for name in self.members if name.startswith("journal/")]:
            head, last = next(lines), 0
            digests = found.setdefault((head["device"], head["life"]), {0: GENESIS})
            for payload in (unb64(line["payload"]) for line in lines):
                body = payload if payload[0] != 120 else zlib.decompressobj().decompress(payload, BATCH_BYTES_MAX)
                batch = json.loads(body)
                life, seq, prev = batch["life"], batch["seq"], batch["prev"]
                same = life == head["life"] and seq > last and digests.get(seq - 1, prev) == prev
                need(same, f"its journal was altered before batch {seq}")
                digests[last := seq] = sha256(payload).hex()
        return found


def root_of(leaves: list[bytes]) -> bytes:
    half = 1 << (len(leaves) - 1).bit_length() >> 1
    return sha256(b"\1", root_of(leaves[:half]), root_of(leaves[half:])) if half else leaves[0]


def climbed(number: int, last: int, path: list[bytes], old: bytes, new: bytes) -> tuple[bytes, bytes]:
    """Roots of the old and the new tree, from a leaf (twice the same) or from the old one's end: RFC 9162, 2.1."""
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
        need(re.fullmatch(r"(— \S+ \S+\n)+", self.below), "a checkpoint without signatures, or with something else")
        self.data, self.text = data, text + "\n"
        self.origin, size, root = self.text.split("\n")[:3]
        self.size, self.root = int(size), unb64(root)

    def times(self, key: str) -> list[int]:
        """When *key* signed it, in ms since the epoch (0: a log's key, which does not say); empty: it did not."""
        name, mark, public = key.split("+", 2)
        found, witness = list[int](), unb64(public)[0] == 4
        verifier = ed25519.Ed25519PublicKey.from_public_bytes(unb64(public)[1:])
        for data in [unb64(line.split(" ")[2]) for line in self.below.split("\n") if line.startswith(f"— {name} ")]:
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
        self.seen, self.stamps = list[tuple[int, float, str]](), list[tuple[int, bytes, bytes]]()
        self.size, self.root, notes = new.size, new.root, [new]
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
            self.stamps += [(old.size, bundle.small(n), old.data) for n in (at + "time.tsr",) if n in bundle.members]
        for note in notes:
            for key in bundle.keys.log_key:
                own = note.origin == f"{key.split('+')[0]}/{number}" and note.times(key)
                need(own, "a checkpoint of it is not signed by the key that was given")
            for key in bundle.keys.witness:
                self.seen += [(note.size, ms, "witness " + key.split("+")[0]) for ms in note.times(key) if ms]


def check_signed(leaf: x509.Certificate, signature: bytes, data: bytes, digest: Any, *chain: Any) -> None:  # noqa: ANN401
    """*chain*: certificates above *leaf*, the roots that count, and when all of them must have been good, in ms."""
    key, (above, roots, ms), free = leaf.public_key(), chain, ExtensionPolicy.permit_all()
    scheme = [ec.ECDSA(digest)] if isinstance(key, ec.EllipticCurvePublicKey) else [padding.PKCS1v15(), digest]
    cast("Any", key).verify(signature, data, *scheme)
    need(roots, "signed by the certificate beside it; whose that is needs --root", UNCHECKED)
    signs = free.require_present(x509.BasicConstraints, Criticality.AGNOSTIC, lambda _, __, e: need(e.ca, "no CA"))
    builder = PolicyBuilder().store(Store(roots)).time(datetime.fromtimestamp(ms / 1000, UTC))
    builder.extension_policies(ee_policy=free, ca_policy=signs).build_client_verifier().verify(leaf, above)


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
    digest, fields = SHA[der(signer[2][1], 0)[0][0]], der(info, 0)
    is_stamp = der(signed[2][1], 0)[0][0] == told[PKCS9 + b"\3"] == PKCS9 + b"\x10\1\4" and status in (b"\0", b"\1")
    same = is_stamp and told[PKCS9 + b"\4"] == hashlib.new(digest.name, info).digest()
    same &= der(fields[2][1], 0, 0)[0][0] == SHA256 and der(fields[2][1], 0)[1][0] == sha256(data)
    need(same, "the time stamp is of another checkpoint, or was altered")
    ms = datetime.strptime(fields[4][0].decode()[:14] + "+0000", "%Y%m%d%H%M%S%z").timestamp() * 1000
    above = [x509.load_der_x509_certificate(each) for _, each in certificates]
    (leaf,) = [each for each in above if any(extension.value == MAY_STAMP for extension in each.extensions)]
    check_signed(leaf, signer[5][0], b"\x31" + signer[3][1][1:], digest, above, roots, ms)
    return ms


class Piece:
    """A file: its manifest as the device signed it, and its history as the server's log has it."""

    def __init__(self, bundle: Bundle, at: str) -> None:
        self.bundle, self.at, self.upload = bundle, at, at.split("/")[1]
        self.envelope, self.pem = bundle.small(at + "manifest.dsse.json"), bundle.small(at + "certificate.pem")
        self.payload = unb64(json.loads(self.envelope)["payload"])
        self.said = json.loads(self.payload)
        self.segment = self.said["segment"] or {"number": 1, "prev": GENESIS, "last": True, "recording": ""}
        recording, number = self.segment["recording"] or self.upload, int(self.segment["number"])
        self.place = str(self.said["device"]), str(recording), number, self.upload

    def events(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        for line in self.bundle.lines(self.at + "events.ndjson"):
            entry, leaf = json.loads(raw := unb64(line["entry"])), sha256(b"\0", raw)
            log, index, path = Log(self.bundle, int(entry["log"])), entry["index"], [*map(unb64, line["proof"])]
            same = 0 <= index < log.size and climbed(index, log.size - 1, path, leaf, leaf)[1] == log.root
            need(same, f"{self.upload}: an event is not in the log")
            yield raw, entry

    def arrived(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the server entered when it had this very file: that it came, and that it was read again."""
        came, read = (entry for _, entry in islice(self.events(), 2))
        what = [came["action"], came["data"]["envelope_sha256"], came["data"]["certificate_sha256"], read["action"]]
        same = ["evidence.received", sha256(self.envelope).hex(), sha256(self.pem).hex(), "evidence.verified"]
        need(what == same and read["data"]["sha256"] == self.said["sha256"], "the log tells of another file")
        return came, read


class Recording(NamedTuple):
    bundle: Bundle
    pieces: list[Piece]  # in their order

    def as_exported(self) -> str:
        found = {name: self.bundle.digest(name) for name in self.bundle.members.keys() - {"index.json"}}
        wrong = sorted({name for name, _ in found.items() ^ self.bundle.index["members"].items()})
        need(not wrong, f"damaged, missing or added: {', '.join(wrong)}")
        listed = "".join(f"{found[name]}  {name}\n" for name in sorted(found) if not LATER.fullmatch(name))
        for piece in self.pieces:
            *_, (_, entry) = piece.events()
            need(entry["data"]["content_sha256"] == sha256(listed.encode()).hex(), "the log tells of other members")
        return f"{len(found)} members; the log has their SHA-256 (what the reports say is the server's word)"

    def unaltered(self) -> str:
        for piece in self.pieces:
            total, leaves, said = hashlib.sha256(), list[bytes](), piece.said
            with piece.bundle.open(piece.at + "original", said["size"]) as file:
                while part := file.read(sorted((1 << 14, said["chunk_bytes"], 1 << 20))[1]):
                    total.update(part)
                    leaves.append(sha256(b"\0", part))
            made = total.hexdigest(), root_of(leaves).hex(), sha256(piece.payload).hex()[:32]
            need(made == (said["sha256"], said["root"], piece.upload), f"{piece.upload} is not what was signed")
        return f"{len(self.pieces)} file(s), each with the SHA-256 of its signed manifest"

    def from_that_device(self) -> str:
        for piece in self.pieces:
            envelope, (leaf, *above) = json.loads(piece.envelope), x509.load_pem_x509_certificates(piece.pem)
            end, (came, _), names = piece.said["end"], piece.arrived(), [each.value for each in leaf.subject]
            need(names == [piece.said["device"]], "signed with the certificate of another device")
            need(not came["data"].get("doubts"), f"doubts of the server: {came['data'].get('doubts')}")
            message = f"DSSEv1 {len(MANIFEST)} {MANIFEST} {len(piece.payload)} ".encode() + piece.payload
            chain = above, self.bundle.keys.root, came["at_ms"] if end["src"] == "none" else end["t_ms"]
            check_signed(leaf, unb64(envelope["signatures"][0]["sig"]), message, hashes.SHA256(), *chain)
        return f"signed by its key (certificate {leaf.serial_number:032x})"

    def complete(self) -> str:
        before, gaps, lacking = None, 0, False
        for number, piece in enumerate(self.pieces, 1):
            segment, said = piece.segment, piece.said
            place = number, sha256(before.payload).hex() if before else GENESIS
            need((segment["number"], segment["prev"]) == place, f"segment {number} is not here, or follows another")
            if before:
                end, begin, told = before.said["end"], said["begin"], segment["gap_ms"]
                gap = begin["mono"] - end["mono"] if begin["boot"] == end["boot"] else told or -GAP_OFF_MS_MAX - 1
                need(abs(gap - told) <= GAP_OFF_MS_MAX, f"before segment {number}: another gap than the device tells")
                gaps += told > 0
            need(number == len(self.pieces) or not segment["last"], f"others follow segment {number}, the last one")
            first, last = said["journal"]["first"], said["journal"]["last"]
            held = self.bundle.journals.get((said["device"], said["journal"]["life"]))
            here = held is None or all(batch in held for batch in range(first, last + 1))
            same = here and (held is None or said["journal"].get("head", held[last]) == held[last])
            need(same, f"batches {first} to {last} of the device's journal are not all here, or were altered")
            before, lacking = piece, lacking or held is None
        need(segment["last"], "it ended abnormally: no segment says that it is the last")
        need(not lacking, "its segments are, but the server had none of the device's journal", UNCHECKED)
        return f"segments 1 to {number}, {gaps} gap(s), which the device told; its journal has no holes"

    def existed_by_then(self) -> str:
        proofs, tsa = list[tuple[float, str]](), self.bundle.keys.tsa_ca
        for _, read in (piece.arrived() for piece in self.pieces):
            log = Log(self.bundle, read["log"])
            stamped = [(size, stamped_ms(token, data, tsa), "time stamp") for size, token, data in log.stamps if tsa]
            later = [(ms, who) for size, ms, who in [*log.seen, *stamped] if size > read["index"]]
            need(later, "no witness and no time stamp of those given is of it (--witness, --tsa-ca)", UNCHECKED)
            proofs.append(min(later))
        begin, end, say, utc = self.pieces[0].said["begin"], self.pieces[-1].said["end"], TIME, datetime.fromtimestamp
        then, first, last = (utc(ms / 1000, UTC).strftime(say) for ms in (max(proofs)[0], begin["t_ms"], end["t_ms"]))
        return f"{then}, by {max(proofs)[1]}; by its clock {first} to {last} ({end['src']}, +-{end['unc_ms']} ms)"

    def log_not_rewritten(self) -> str:
        events = [len(list(piece.events())) for piece in self.pieces]
        need(self.bundle.keys.log_key, "whose log it is needs --log-key", UNCHECKED)
        for _, read in (piece.arrived() for piece in self.pieces):
            seen = any(size > read["index"] for size, _, _ in Log(self.bundle, read["log"]).seen)
            need(seen, "the server's signature holds; no witness given saw it, so it may be rewritten", UNCHECKED)
        return f"{sum(events)} events are in it, and it goes on from what the witness saw"

    def no_events_hidden(self) -> str:
        for piece in self.pieces:
            prev = GENESIS
            for number, (raw, entry) in enumerate(piece.events()):
                told = entry["subject"], entry["data"]["number"], entry["data"]["prev"]
                need(told == (piece.upload, str(number), prev), f"{piece.upload}: no event {number}, or another")
                prev = sha256(raw).hex()
            need(self.bundle.keys.log_key, "whose log it is needs --log-key", UNCHECKED)
            ends = (entry["action"], entry["data"]["export"]) == ("evidence.exported", self.bundle.index["export"])
            need(ends, f"{piece.upload}: its history does not end with this export")
        return "the events of each file are numbered from 0 without holes, and the last one is this export"


def verdicts(file: BinaryIO, keys: argparse.Namespace) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    pieces = list[Piece]()

    def readable() -> str:
        bundle, name = Bundle(file, keys), "manifest.dsse.json"
        found = [Piece(bundle, each.removesuffix(name)) for each in bundle.members if each.endswith("/" + name)]
        pieces.extend(sorted(found, key=lambda piece: piece.place))
        return f"{len(pieces)} files of {len({piece.place[:2] for piece in pieces})} recordings"

    yield "The bundle", [judged(readable), *(judged(Recording(p.bundle, pieces).as_exported) for p in pieces[:1])]
    for (device, name), group in groupby(pieces, key=lambda piece: piece.place[:2]):
        one = Recording(pieces[0].bundle, list(group))
        checks = one.unaltered, one.from_that_device, one.complete, one.existed_by_then, one.log_not_rewritten
        yield f"Recording {name} of device {device}", [judged(check) for check in (*checks, one.no_events_hidden)]


def main(argv: list[str] | None = None) -> int:
    def trusted(path: str) -> list[Any]:
        text = Path(path).read_text()
        return x509.load_pem_x509_certificates(text.encode()) if "BEGIN" in text else [text.strip()]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=lambda path: Path(path).open("rb"))  # noqa: SIM115
    for name in ("--root", "--log-key", "--witness", "--tsa-ca"):
        parser.add_argument(name, type=trusted, action="extend", default=[], metavar="FILE")
    results = set[str]()
    try:
        keys = parser.parse_args(argv)
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    with keys.bundle as file:
        for heading, lines in verdicts(file, keys):
            for text in [heading, *(f"  {result:<12} {claim:<22} {detail}" for result, claim, detail in lines)]:
                print("".join(c if c.isprintable() else "?" for c in text[:400]))
            results |= {result for result, _, _ in lines}
    code = 1 if FAIL in results else 3 if UNCHECKED in results else 0
    print(("All was checked, and holds.", "Something does not hold.", "", "Not everything was checked.")[code])
    return code


if __name__ == "__main__":
    sys.exit(main())
