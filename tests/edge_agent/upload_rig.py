"""A server so small that a test can read it: it takes chunks, says what is missing, and signs receipts."""

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from broker_config import manifest, signing, topics, transfer
from broker_config.limits import KIB
from broker_config.manifest import Manifest
from broker_config.ranges import minus
from broker_config.signing import Kind
from broker_config.topics import Down, Up
from broker_config.transfer import (
    EvidenceReceipt,
    Leaves,
    Offer,
    Query,
    Receipted,
    Reject,
    State,
    StorageClass,
    Withdraw,
)
from tests.edge_agent import rig as rigs
from tests.orders import ROOTS, SERVER, Key, claims, order
from tests.servers import Site

UPLOADS = (
    '[orders]\nsigners_file = "signers.json"\n'
    "[uploads]\nlook_s = 0.1\nabnormal_s = 2.0\nreserve_bytes = 0\n[uploads.folders.logs]\n"
)


def lay_out(directory: Path, broker: Site | None, uploads: str = UPLOADS, **how: str) -> rigs.Rig:
    """A device that uploads logs, and obeys the tests' signer."""
    directory.mkdir(exist_ok=True)
    (directory / "signers.json").write_bytes(signing.encode(ROOTS))
    (directory / "signers.json").chmod(0o600)
    return rigs.lay_out(directory, broker, profile=rigs.fast_profile(directory), extra=uploads, **how)


def put(folder: Path, name: str, data: bytes) -> Path:
    """As a recorder does it."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{name}.part"
    part.write_bytes(data)
    return part.rename(folder / name)


def is_signed(offer: Offer) -> bool:
    """Whether the manifest's signature is of the certificate's key."""
    certificate = x509.load_pem_x509_certificate(offer.certificate.encode())
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    (signature,) = offer.manifest.signatures
    assert signature.keyid == f"{certificate.serial_number:032x}"
    signed = signing.pre_authentication(offer.manifest.payload_type, offer.manifest.payload)
    key.verify(signature.sig, signed, ec.ECDSA(hashes.SHA256()))
    return True


@dataclass
class Taken:
    """An upload."""

    offer: Offer
    manifest: Manifest
    data: bytearray
    missing: tuple[tuple[int, int], ...]
    receipted: bool = False


@dataclass
class Taker:
    """``window_bytes`` 0: a pause; ``receipts``: of which class, None is none; ``lose``: one chunk in so many."""

    server: rigs.Server
    window_bytes: int = 256 * KIB
    receipts: StorageClass | None = StorageClass.LOGGED
    lose: int = 0
    reject: Reject | None = None
    signer: Key = SERVER
    taken: dict[str, Taken] = field(default_factory=dict)
    offers: int = 0
    chunks: int = 0
    withdrawn: list[Withdraw] = field(default_factory=list)
    leaves: list[Leaves] = field(default_factory=list)
    ask_leaves: bool = False
    counter: int = 0

    def files(self) -> dict[str, bytes]:
        """Name -> content, of what is whole."""
        return {each.manifest.name: bytes(each.data) for each in self.taken.values() if not each.missing}

    async def say(self, payload: bytes) -> None:
        """On dn/upload."""
        await self.server.client.publish(topics.down(rigs.DEVICE, Down.UPLOAD), payload, qos=1)

    async def told(self, channel: Up, payload: bytes) -> None:
        if channel is Up.CHUNK:
            await self._chunk(transfer.decode_chunk(payload))
            return
        message = transfer.decode_up(payload)
        match message:
            case Offer():
                self.offers += 1
                assert is_signed(message)
                upload = manifest.upload_id(message.manifest.payload)
                if self.reject is not None:
                    await self.say(transfer.encode(msgspec.structs.replace(self.reject, upload=upload)))
                    return
                told = manifest.decode(message.manifest)
                whole = ((0, told.chunks - 1),)
                self.taken.setdefault(upload, Taken(message, told, bytearray(told.size), whole))
                await self.state(upload)
            case Query():
                await self.state(message.upload)
            case Withdraw():
                self.withdrawn.append(message)
            case Leaves():
                self.leaves.append(message)

    async def _chunk(self, chunk: transfer.CheckedChunk) -> None:
        self.chunks += 1
        if self.lose and self.chunks % self.lose == 0:
            return
        taken = self.taken[chunk.upload]
        at = chunk.number * taken.manifest.chunk_bytes
        taken.data[at : at + len(chunk.data)] = chunk.data
        taken.missing = minus(taken.missing, ((chunk.number, chunk.number),))
        await self.state(chunk.upload)

    async def state(self, upload: str) -> None:
        taken = self.taken.get(upload)
        if taken is None:
            await self.say(transfer.encode(Reject(1, upload, transfer.Code.UNKNOWN)))
            return
        window = self.window_bytes
        said = State(1, upload, taken.missing[:64], window, more=len(taken.missing) > 64, leaves=self.ask_leaves)
        await self.say(transfer.encode(said))
        if not taken.missing and self.receipts is not None:
            await self.receipt(upload)

    async def receipt(self, *uploads: str, **changes: object) -> None:
        """Sign for what was offered."""
        said = [self.receipted(upload, **changes) for upload in uploads]
        await self.say(self.signed(EvidenceReceipt(1, tuple(said))))

    def receipted(self, upload: str, /, **changes: object) -> Receipted:
        told = self.taken[upload].manifest
        good = Receipted(upload, told.sha256, told.size, self.receipts or StorageClass.LOGGED, 1, 7)
        return msgspec.structs.replace(good, **changes)

    def signed(self, body: EvidenceReceipt) -> bytes:
        now_ms = time.time_ns() // 1_000_000
        self.counter = max(self.counter + 1, now_ms)
        told = claims(body, kind=Kind.EVIDENCE_RECEIPT, at_ms=now_ms, counter=self.counter)
        return order(told, self.signer)


@contextlib.asynccontextmanager
async def taker(broker: Site) -> AsyncIterator[Taker]:
    """A server that takes files, too."""
    async with rigs.server(broker) as server:
        found = Taker(server)
        server.other = found.told
        for channel in (Up.UPLOAD, Up.CHUNK):
            await server.client.subscribe(topics.up_filter(channel), qos=1)
        yield found
