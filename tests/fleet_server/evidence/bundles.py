"""A good bundle from values: devices with certificates, recordings in segments, journals, a log with a witness and a
time stamp. What a server would enter is entered by its own functions; only its stores are left out.
"""

import hashlib
import io
import random
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from broker_config import limits, manifest, merkle, signing, telemetry
from broker_config.ids import DeviceId
from broker_config.manifest import JournalRange, Manifest, Moment, Segment
from broker_config.signing import Envelope, Signature
from broker_config.telemetry import Clock, Event, Events
from fleet_server.access import audit, ca, tlog
from fleet_server.access.audit import Head
from fleet_server.access.enrolment import serial_text
from fleet_server.access.notes import COSIGNATURE, Checkpoint, Signer
from fleet_server.adapters.bundle_zip import zipped
from fleet_server.evidence import bundle, custody
from fleet_server.evidence.arrival import Arrival
from fleet_server.evidence.bundle import Anchor, Covered, Journal, Original, Proved, Trust
from fleet_server.evidence.content import MissingContentError
from fleet_server.evidence.custody import Act, Last
from tests.fleet_server.access.drafts import LOG, SITE, draft
from tests.fleet_server.evidence.arrivals import Folder

NOW: Final = datetime.fromtimestamp(LOG / 1000, UTC)
WITNESS: Final = Signer("prosecutor.example/witness", bytes(range(32, 64)), COSIGNATURE)
BOOT: Final = "5c1d7a90be2f4436"
EXPORT: Final = "e4" * 8
SEGMENT_MS: Final = 30_000


class Memory:
    """Contents by their SHA-256."""

    name = "memory"

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        self.held[sha256] = data
        return sha256

    def open(self, sha256: str) -> BinaryIO:
        if sha256 not in self.held:
            raise MissingContentError(sha256)
        return io.BytesIO(self.held[sha256])

    def exists(self, sha256: str) -> bool:
        return sha256 in self.held

    def remove(self, sha256: str) -> None:
        self.held.pop(sha256, None)

    def names(self) -> Iterator[str]:
        return iter(self.held)


class Site:
    """The authorities of the devices: a root, and an intermediate that signs."""

    def __init__(self) -> None:
        self.root = ca.new_root("device root", now=NOW - timedelta(days=30))
        self.intermediate = ca.new_intermediate(self.root, "device authority", now=NOW - timedelta(days=30))

    def chain(self, leaf: x509.Certificate) -> str:
        return (leaf.public_bytes(Encoding.PEM) + self.intermediate.certificate_pem).decode()


class Camera:
    """A device with a key, a certificate, and a journal that it keeps."""

    def __init__(self, site: Site, name: str = "cam-7", *, rsa_bits: int = 0) -> None:
        self.device = DeviceId(name)
        self.key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
        signer = ca.Ca.load(site.intermediate)
        if rsa_bits:
            self.key = rsa.generate_private_key(public_exponent=65_537, key_size=rsa_bits)
            self.leaf = ca.sign_device(signer, name, self.key.public_key(), now=NOW - timedelta(days=3))
        else:
            issued = ca.new_device(signer, name, now=NOW - timedelta(days=3), life=timedelta(days=30))
            key = load_pem_private_key(issued.key_pem, password=None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            self.key, self.leaf = key, ca.certificate_of(issued)
        self.chain = site.chain(self.leaf)
        self.life = hashlib.sha256(name.encode()).hexdigest()[:16]
        self.batches: list[bytes] = []

    def told(self, events: int = 1) -> tuple[int, str]:
        """One more batch of the journal; its number, and its digest."""
        prev = hashlib.sha256(self.batches[-1]).hexdigest() if self.batches else telemetry.GENESIS
        seq = len(self.batches) + 1
        record = Events(
            v=1,
            stream=telemetry.JOURNAL,
            life=self.life,
            seq=seq,
            boot=BOOT,
            t0=LOG + seq * 1_000,
            mono=seq * 1_000,
            clock=Clock("ntp", 0, 40),
            prev=prev,
            dt=list(range(events)),
            events=[Event("link.up", {"number": float(each)}) for each in range(events)],
        )
        payload, _ = telemetry.encode(record)
        self.batches.append(payload)
        return seq, hashlib.sha256(payload).hexdigest()

    def sign(self, data: bytes) -> bytes:
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return self.key.sign(data, ec.ECDSA(hashes.SHA256()))

    def sealed(self, said: Manifest) -> Envelope:
        payload = manifest.encode(said)
        signed = self.sign(signing.pre_authentication(manifest.PAYLOAD_TYPE, payload))
        return Envelope(payload, manifest.PAYLOAD_TYPE, (Signature(serial_text(self.leaf.serial_number), signed),))

    def recorded(
        self, store: Memory | Folder, name: str, segments: int, *, size: int, rng: random.Random, **odd: Any
    ) -> list[Arrival]:
        """A recording, whole. *odd*: ``gap_ms`` before the second segment, ``told_ms`` of it, ``last``, ``boot2``,
        ``src`` and ``later_ms`` of its clock.
        """
        prev, made, mono, t0 = manifest.GENESIS, [], 1_000_000, LOG + odd.get("later_ms", 0)
        for number in range(1, segments + 1):
            first, _ = self.told(40 if number == 1 else 1)  # the first is long enough to be compressed
            last, head = self.told()
            data = rng.randbytes(size + number)
            mono += odd.get("gap_ms", 0) if number == 2 else 0
            clock: dict[str, Any] = {"unc_ms": 40, "src": odd.get("src", "ntp")}
            boot = odd.get("boot2", BOOT) if number == 2 else BOOT
            told_ms = odd.get("told_ms", odd.get("gap_ms", 0)) if number == 2 else 0
            said = Manifest(
                v=1,
                device=self.device,
                file_class="recordings",
                name=f"segment-{number}.mp4",
                media_type="video/mp4",
                size=len(data),
                sha256=store.put(data),
                chunk_bytes=limits.CHUNK_BYTES_MIN,
                root=merkle.root_of(map(merkle.leaf_hash, chunks(data))).hex(),
                begin=Moment(t0 + mono, mono=mono, boot=boot, **clock),
                end=Moment(t0 + mono + SEGMENT_MS, mono=mono + SEGMENT_MS, boot=boot, **clock),
                journal=JournalRange(self.life, first, last, head),
                segment=Segment(
                    name,
                    number,
                    prev,
                    last=number == segments and odd.get("last", True),
                    gap_ms=told_ms,
                    trigger="button",
                )
                if name
                else None,
                holder="officer-12",
            )
            mono += SEGMENT_MS
            envelope = self.sealed(said)
            prev = manifest.digest(envelope.payload)
            made.append(arrived(said, envelope, self.chain))
        return made


def chunks(data: bytes) -> list[bytes]:
    return [data[at : at + limits.CHUNK_BYTES_MIN] for at in range(0, len(data), limits.CHUNK_BYTES_MIN)]


def arrived(said: Manifest, envelope: Envelope, chain: str, doubts: tuple[str, ...] = ()) -> Arrival:
    at_ms = said.end.t_ms + 60_000
    name = manifest.upload_id(envelope.payload)
    return Arrival(name, said, signing.encode(envelope), chain, at_ms, at_ms + 500, "mqtt", doubts)


class Book:
    """The audit log, in memory: entries, and chains of events by subject."""

    def __init__(self, signer: Signer) -> None:
        self.signer = signer
        self.head = Head(LOG, 0, audit.GENESIS)
        self.entries: list[bytes] = []
        self.lasts: dict[str, Last] = {}
        self.histories: dict[str, list[int]] = {}

    def noise(self, count: int) -> None:
        for _ in range(count):
            self._add(draft(len(self.entries)))

    def event(self, act: Act) -> None:
        last = self.lasts.get(act.subject, Last())
        raw = self._add(custody.drafted(act, last, salt="0" * 32))
        self.lasts[act.subject] = Last(last.events + 1, audit.digest(raw))
        self.histories.setdefault(act.subject, []).append(len(self.entries) - 1)

    def note(self, size: int | None = None) -> str:
        size = len(self.entries) if size is None else size
        frontier = tlog.Frontier()
        for raw in self.entries[:size]:
            frontier.append(merkle.leaf_hash(raw))
        return self.signer.sign(Checkpoint(audit.origin(SITE, LOG), size, frontier.root()).text())

    def hash_of(self, leaves: tlog.Leaves) -> bytes:
        return merkle.root_of(merkle.leaf_hash(raw) for raw in self.entries[leaves.begin : leaves.end])

    def consistency(self, old: int, size: int) -> list[bytes]:
        return [self.hash_of(each) for each in tlog.consistency(old, size)]

    def proved(self, index: int, size: int) -> Proved:
        return Proved(LOG, self.entries[index], [self.hash_of(each) for each in tlog.inclusion(index, size)])

    def _add(self, each: audit.Draft) -> bytes:
        raw, self.head = audit.entered(each, self.head)
        self.entries.append(raw)
        return raw


@dataclass
class Made:
    """A bundle as its members, and what to check it with."""

    members: dict[str, bytes]
    keys: dict[str, str]
    """Option of verify.py -> what goes into the file."""
    site: Site
    cameras: list[Camera] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    book: Book | None = None

    def arguments(self, directory: Path, *, without: Sequence[str] = ()) -> list[str]:
        """The options, with files of their own."""
        found: list[str] = []
        for option, text in self.keys.items():
            path = directory / f"{option.strip('-')}.key"
            path.write_text(text)
            found += [] if option in without else [option, str(path)]
        return found


@dataclass
class Plan:
    """What goes into a bundle, and what may be odd about it."""

    signer: Signer
    site: Site
    store: Memory = field(default_factory=Memory)
    arrivals: list[Arrival] = field(default_factory=list)
    cameras: list[Camera] = field(default_factory=list)
    journals: bool = True
    witness: Signer | None = WITNESS
    stamp: Any = None
    """note -> a TimeStampResp."""
    tsa_root: str = ""
    noise: int = 5
    """Entries of the log before the first piece."""
    hide: int = 0
    """Which event of the first piece's history is left out, counted from 1."""


def made(plan: Plan) -> Made:
    """The bundle of a plan, as a server would make it."""
    book = Book(plan.signer)
    book.noise(plan.noise)
    for each in plan.arrivals:
        for act in custody.arrived(each):
            book.event(act)
        book.noise(1)
    seen = len(book.entries)
    anchors = [(book.note(seen), None)]
    if plan.witness is not None:
        anchors.append((plan.witness.cosign(book.note(seen), at_s=LOG // 1000 + 7_200), None))
    if plan.stamp is not None:
        anchors.append((book.note(seen), plan.stamp(book.note(seen).encode())))
    book.event(Act(custody.Event.VIEWED, plan.arrivals[0].upload, "ann", LOG + 9_000_000))
    book.noise(3)
    journals = [Journal(c.device, c.life, list(enumerate(c.batches, 1))) for c in plan.cameras if plan.journals]
    root = plan.site.root.certificate_pem.decode()
    trust = Trust((root,), plan.signer.verifier.text())
    content = bundle.content(
        [piece_of(each) for each in plan.arrivals], journals, [], trust, {"README.txt": "read\n"}
    )
    digest = bundle.content_digest(content)
    for each in plan.arrivals:
        book.event(
            Act(
                custody.Event.EXPORTED,
                each.upload,
                "ann",
                LOG + 9_900_000,
                {"export": EXPORT, "content_sha256": digest},
            )
        )
    book.noise(2)
    size = len(book.entries)
    covered = Covered(
        LOG, book.note(), [Anchor(note, book.consistency(seen, size), token) for note, token in anchors]
    )
    histories = {each.upload: [book.proved(at, size) for at in book.histories[each.upload]] for each in plan.arrivals}
    if plan.hide:
        histories[plan.arrivals[0].upload].pop(plan.hide - 1)
    members = bundle.whole(EXPORT, {**content, **bundle.proofs(histories, [covered])})
    keys = {"--root": root, "--log-key": plan.signer.verifier.text()}
    keys |= {"--witness": plan.witness.verifier.text()} if plan.witness else {}
    keys |= {"--tsa-ca": plan.tsa_root} if plan.tsa_root else {}
    whole = {n: plan.store.held[m.sha256] if isinstance(m, Original) else m for n, m in members.items()}
    return Made(whole, keys, plan.site, plan.cameras, plan.arrivals, book)


def piece_of(each: Arrival) -> Any:
    """As much of a piece as a bundle needs."""
    return _Piece(each.upload, each.envelope, each.certificate, each.manifest.sha256, each.manifest.size)


@dataclass(frozen=True)
class _Piece:
    piece: str
    envelope: bytes
    certificate: str
    sha256: str
    size: int


def zip_of(members: Mapping[str, bytes]) -> bytes:
    """As the server writes it."""
    return b"".join(zipped(dict(members), Memory()))


def indexed(members: Mapping[str, bytes]) -> dict[str, bytes]:
    """With an index that says what is there: whoever changes a bundle can do that."""
    index = msgspec.json.decode(members["index.json"])
    index["members"] = {n: hashlib.sha256(data).hexdigest() for n, data in members.items() if n != "index.json"}
    return {**members, "index.json": msgspec.json.encode(index)}


def members_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist()}
