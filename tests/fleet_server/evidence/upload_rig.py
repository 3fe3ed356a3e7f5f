"""A device that sends files as the contract says, and the server's side over real directories and a real database."""

import hashlib
import random
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker_config import limits, manifest, signing, transfer
from broker_config.device_classes import Priority
from broker_config.ids import DeviceId
from broker_config.manifest import JournalRange, Manifest, Moment, Segment
from broker_config.merkle import leaf_hash, root_of
from broker_config.signing import Envelope, Signature
from broker_config.transfer import Chunk, DownMessage, Leaves, Offer, Query, Receipted, State, Withdraw
from fleet_server.access import ca
from fleet_server.access.audit import Place
from fleet_server.access.enrolment import serial_text
from fleet_server.adapters.incoming_files import ContentDirectory, IncomingDirectory, crcs_of, read_again
from fleet_server.adapters.sqlite_uploads import SqliteUploads
from fleet_server.evidence.admission import Bounds, Trust
from fleet_server.evidence.arrival import Arrival
from fleet_server.evidence.finishing import Finished, Finisher
from fleet_server.evidence.groups import Group
from fleet_server.evidence.transfer import Transfer
from fleet_server.evidence.underway import Outcome, Said, Told, UnderWay
from fleet_server.evidence.uploads import Upload
from fleet_server.evidence.windows import Windows
from fleet_server.telemetry.store import StoreError

T0: Final = 1_767_254_400_000
NOW: Final = datetime.fromtimestamp(T0 / 1000, UTC)
CAMERA: Final = DeviceId("cam-7")
OTHER: Final = DeviceId("cam-8")
BOUNDS: Final = Bounds(0.99, 1 << 40)
ROUNDS_MAX: Final = 10_000
CHUNK: Final = limits.CHUNK_BYTES_MIN


@dataclass(frozen=True)
class Identity:
    """A device's certificate with what stands above it, and its key."""

    device: DeviceId
    chain_pem: str
    key: ec.EllipticCurvePrivateKey
    serial: str

    @classmethod
    def of(cls, issued: ca.Issued, device: DeviceId, above: bytes) -> "Identity":
        key = load_pem_private_key(issued.key_pem, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        serial = serial_text(ca.certificate_of(issued).serial_number)
        return cls(device, (issued.certificate_pem + above).decode("ascii"), key, serial)

    def signed(self, payload: bytes, *, keyid: str | None = None) -> Envelope:
        signature = self.key.sign(
            signing.pre_authentication(manifest.PAYLOAD_TYPE, payload), ec.ECDSA(hashes.SHA256())
        )
        return Envelope(payload, manifest.PAYLOAD_TYPE, (Signature(keyid or self.serial, signature),))


@dataclass(frozen=True)
class Authorities:
    """The devices' root and what it signed."""

    root: ca.Issued
    intermediate: ca.Issued

    @classmethod
    def new(cls, now: datetime = NOW) -> "Authorities":
        root = ca.new_root("test device root", now=now)
        return cls(root, ca.new_intermediate(root, "test devices", now=now))

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        return (ca.certificate_of(self.intermediate), ca.certificate_of(self.root))

    def device(self, device: DeviceId, *, now: datetime = NOW) -> Identity:
        above = self.intermediate.certificate_pem + self.root.certificate_pem
        return Identity.of(ca.issue_device(self.intermediate, device, now=now), device, above)


AUTHORITIES: Final = Authorities.new()


def manifest_of(
    data: bytes,
    device: DeviceId = CAMERA,
    *,
    chunk_bytes: int = CHUNK,
    name: str = "cam_00001.mp4",
    at_ms: int = T0,
    segment: Segment | None = None,
    **changes: object,
) -> Manifest:
    """What a device says of *data*."""
    leaves = [leaf_hash(data[at : at + chunk_bytes]) for at in range(0, len(data), chunk_bytes)]
    fields: dict[str, object] = {
        "v": 1,
        "device": device,
        "file_class": "recordings",
        "name": name,
        "media_type": "video/mp4",
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "chunk_bytes": chunk_bytes,
        "root": root_of(leaves).hex(),
        "begin": Moment(at_ms, 40, "ntp", "5c1d7a90be2f4436", 1_000),
        "end": Moment(at_ms + 1_000, 40, "ntp", "5c1d7a90be2f4436", 2_000),
        "journal": JournalRange("9f0c2b1a77d3e458", 4, 5),
        "segment": segment,
    }
    return Manifest(**(fields | changes))  # type: ignore[arg-type]


@dataclass
class File:
    """A file of a device, and all that it says about it."""

    data: bytes
    manifest: Manifest
    identity: Identity
    priority: Priority = Priority.ROUTINE

    @property
    def payload(self) -> bytes:
        return manifest.encode(self.manifest)

    @property
    def upload(self) -> str:
        return manifest.upload_id(self.payload)

    @property
    def device(self) -> DeviceId:
        return self.identity.device

    @property
    def offer(self) -> Offer:
        return Offer(1, self.identity.signed(self.payload), self.identity.chain_pem, self.priority)

    def chunk_data(self, number: int) -> bytes:
        size = self.manifest.chunk_bytes
        return self.data[number * size : (number + 1) * size]

    def says_offer(self) -> Said:
        return Said(self.device, transfer.encode(self.offer), chunk=False)

    def says_query(self) -> Said:
        return Said(self.device, transfer.encode(Query(1, self.upload)), chunk=False)

    def says_withdraw(self, reason: str = "unreadable") -> Said:
        return Said(self.device, transfer.encode(Withdraw(1, self.upload, reason)), chunk=False)

    def says_leaves(self) -> list[Said]:
        size, hashed = self.manifest.chunk_bytes, []
        hashed = [leaf_hash(self.data[at : at + size]) for at in range(0, len(self.data), size)]
        return [
            Said(
                self.device,
                transfer.encode(Leaves(1, self.upload, at, b"".join(hashed[at : at + transfer.LEAVES_MAX]))),
                chunk=False,
            )
            for at in range(0, len(hashed), transfer.LEAVES_MAX)
        ]

    def says_chunk(self, number: int, data: bytes | None = None) -> Said:
        chunk = Chunk(self.upload, number, self.chunk_data(number) if data is None else data)
        return Said(self.device, transfer.encode_chunk(chunk), chunk=True)


def file_of(size: int, seed: int = 1, device: DeviceId = CAMERA, **changes: object) -> File:
    """Random bytes, signed by the device's own key."""
    data = random.Random(seed).randbytes(size)
    identity = identity_of(device)
    return File(data, manifest_of(data, device, **changes), identity)  # type: ignore[arg-type]


_identities: dict[DeviceId, Identity] = {}


def identity_of(device: DeviceId) -> Identity:
    """One for each device, for as long as the tests run."""
    if device not in _identities:
        _identities[device] = AUTHORITIES.device(device)
    return _identities[device]


class SqliteRegister:
    """The port :class:`fleet_server.evidence.arrival.Register`: one durable table."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.down = False
        with self._connect() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS arrival(number INTEGER PRIMARY KEY, upload TEXT UNIQUE, sha256 TEXT,"
                " device TEXT, via TEXT, doubts TEXT)"
            )

    def verified(self, arrival: Arrival) -> Place:
        if self.down:
            raise StoreError("the database is away")
        told = arrival.manifest
        with self._connect() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO arrival(upload, sha256, device, via, doubts) VALUES(?, ?, ?, ?, ?)",
                (arrival.upload, told.sha256, told.device, arrival.via, " ".join(arrival.doubts)),
            )
            row = connection.execute("SELECT number FROM arrival WHERE upload = ?", (arrival.upload,)).fetchone()
        return Place(1, row[0])

    def entered(self) -> list[str]:
        with self._connect() as connection:
            return [row[0] for row in connection.execute("SELECT upload FROM arrival ORDER BY number")]

    def restore_empty(self) -> None:
        """As from a backup of before anything came."""
        with self._connect() as connection:
            connection.execute("DELETE FROM arrival")
            connection.execute("INSERT INTO arrival(upload) VALUES('something else')")

    def doubts(self, upload: str) -> str:
        with self._connect() as connection:
            row = connection.execute("SELECT doubts FROM arrival WHERE upload = ?", (upload,)).fetchone()
        return str(row[0])

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path)
        connection.execute("PRAGMA synchronous = FULL")
        return connection


@dataclass
class Side:
    """The server's side without a broker; ``restart`` is a new process over the same files."""

    directory: Path
    bounds: Bounds = BOUNDS
    windows: Windows = field(default_factory=Windows)
    replica: bool = False
    revoked: dict[str, int] = field(default_factory=dict)
    now_s: float = 100.0
    receipts: list[tuple[DeviceId, Receipted]] = field(default_factory=list)
    told: list[tuple[DeviceId, DownMessage]] = field(default_factory=list)
    suspect: list[str] = field(default_factory=list)
    whole: list[tuple[object, Sequence[bytes]]] = field(default_factory=list)
    done: list[Upload] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.register = SqliteRegister(self.directory / "register.db")
        self.restart()

    def restart(self) -> None:
        self.uploads = SqliteUploads(self.directory / "uploads.db")
        self.incoming = IncomingDirectory(self.directory / "incoming")
        self.content = ContentDirectory(self.directory)
        self.copies = ContentDirectory(self.directory / "replica", "replica") if self.replica else None
        self.finisher = Finisher(
            self.uploads,
            self.incoming,
            self.content,
            self.copies,
            self.register,
            read_again=read_again,
            crcs_of=crcs_of,
            now_ms=lambda: self.now_ms,
        )
        self.table = UnderWay(self.uploads, self.incoming, self.windows)
        self.transfer = Transfer(
            self.table,
            Trust(AUTHORITIES.chain, self.revoked.get, timedelta(days=60)),
            self.bounds,
            has_content=self.content.exists,
        )
        self.whole.clear()
        self._keep(self.transfer.begin(now_s=self.now_s))

    @property
    def now_ms(self) -> int:
        return T0 + int(1000 * self.now_s)

    def write(self, *said: Said) -> Group:
        """The first of the four steps."""
        return self.transfer.write(said, now_ms=self.now_ms, now_s=self.now_s)

    def secure(self, group: Group) -> None:
        """The second and the third."""
        self.transfer.sync(group)
        self.transfer.commit(group, now_ms=self.now_ms)

    def settle(self, group: Group) -> list[Told]:
        """The last; what is told."""
        return self._keep(self.transfer.settle(group, now_ms=self.now_ms, now_s=self.now_s)).told

    def say(self, *said: Said) -> Outcome:
        """One group."""
        self.now_s += 0.02
        out = self.transfer.take(said, now_ms=self.now_ms, now_s=self.now_s)
        return self._keep(out)

    def finish(self) -> list[Finished]:
        """Read again what is whole."""
        results = []
        while self.done:
            result = self.finisher.enter_again(self.done.pop(0))
            self._keep(self.transfer.finished(result, now_ms=self.now_ms, now_s=self.now_s))
            results.append(result)
        while self.whole:
            upload, leaves = self.whole.pop(0)
            result = self.finisher.finish(upload, leaves)  # type: ignore[arg-type]
            self._keep(self.transfer.finished(result, now_ms=self.now_ms, now_s=self.now_s))
            results.append(result)
        return results

    def look(self, after_s: float) -> Outcome:
        self.now_s += after_s
        return self._keep(self.transfer.look(now_s=self.now_s))

    def _keep(self, out: Outcome) -> Outcome:
        self.receipts += out.due
        self.told += out.told
        self.suspect += out.suspect
        self.whole += out.whole
        self.done += out.done
        return out

    def state(self, file: File) -> State:
        """The last that its device was told of it."""
        states = [m for device, m in self.told if device == file.device and m.upload == file.upload]
        assert states, "nothing was told"
        last = states[-1]
        assert isinstance(last, State), last
        return last

    def kept(self, file: File) -> bytes:
        """What the store has of it, byte for byte."""
        with self.content.open(file.manifest.sha256) as opened:
            return opened.read()

    def receipted(self, file: File) -> Receipted | None:
        """The last receipt of it."""
        found = [each for device, each in self.receipts if each.upload == file.upload and device == file.device]
        return found[-1] if found else None

    def send(self, file: File, *, group: int = 8) -> None:
        """Offer it and send what is missing until it is receipted."""
        self.say(file.says_offer())
        for _ in range(ROUNDS_MAX):
            self.finish()
            if self.receipted(file) is not None:
                return
            wanted = list(numbers(self.state(file).missing))[:group]
            self.say(*[file.says_chunk(number) for number in wanted] or [file.says_query()])
        raise AssertionError("not done")


def numbers(ranges: Iterable[tuple[int, int]]) -> Iterable[int]:
    for low, high in ranges:
        yield from range(low, high + 1)
