"""A repository of releases as two persons and a server keep it, a device that fetches from it, and what may go wrong
between them: the server is in an attacker's hands, and so is the network.
"""

import asyncio
import base64
import contextlib
import json
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tuf.api.metadata import Metadata, Targets

from broker_config.enrolment import session_proof
from broker_config.releases import METADATA_PATH, TARGETS_PATH, Custom, ImageKind, stored_path
from edge_agent import config, enrolling
from edge_agent.adapters import x509
from edge_agent.fetch_release import fetch_release
from edge_agent.releases import USUAL, Fetched, Pace, Wanted
from fleet_server.adapters.release_directory import METADATA, ReleaseDirectory
from fleet_server.adapters.signing_key import FileKey, new_key_pem
from fleet_server.releases import roots, targets
from fleet_server.releases.metadata import sign
from fleet_server.releases.publishing import Publisher
from fleet_server.releases.roots import Signers
from fleet_server.releases.targets import Release
from tests.enrolment import Office, office
from tests.servers import HOST

HW: Final = "dock-2"
GOOD: Final = "mcu/dock-2/1.4.0.bin"
COUNTER: Final = 12
IMAGE: Final = bytes(n * 7 % 251 for n in range(200_000))
EVIL: Final = b"\x90" * len(IMAGE)
HURRIED: Final = Pace(grace_s=0.5, bytes_s_min=10_000)
"""Of a device that is held back; others have the usual time, however busy the machine is."""
MINUTE_D: Final = 1 / 1440

_keys = [FileKey(new_key_pem()) for _ in range(4)]
ANNA, BEN, SERVER, STRANGER = _keys
PERSONS: Final = (ANNA, BEN)
SIGNERS: Final = Signers(
    frozenset(each.public for each in PERSONS), frozenset(each.public for each in PERSONS), SERVER.public
)


def custom(counter: int = COUNTER, *, hw: str = HW, version: str = "1.4.0", over: tuple[int, ...] = ()) -> Custom:
    return Custom(hw, ImageKind.MCU, version, counter, over)


class Repository:
    """A directory, as *now* has it."""

    def __init__(self, directory: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.directory = directory
        self.store = ReleaseDirectory(directory)
        self.now = now
        self.publisher = Publisher(self.store, now)

    def begin(self, *, signers: Signers = SIGNERS) -> None:
        """Version 1 of the root, and a list with nothing in it."""
        root = roots.first_root(signers, now=self.now())
        for person in PERSONS:
            sign(root, person)
        self.publisher.adopt_root(root.to_bytes(), SERVER)
        self.adopt(targets.renewed(None, now=self.now()))

    def adopt(
        self, listed: Metadata[Targets], images: dict[str, Path] | None = None, by: tuple[FileKey, ...] = PERSONS
    ) -> None:
        for person in by:
            sign(listed, person)
        self.publisher.adopt_targets(listed.to_bytes(), images or {}, SERVER)

    def with_one(self, data: bytes = IMAGE, said: Custom | None = None) -> tuple[Metadata[Targets], dict[str, Path]]:
        """A list with one release more, and its image in a file."""
        said = said or custom()
        path = targets.path_of(said, ".bin")
        file = self.directory.parent / f"{self.directory.name}-{said.version}-{said.hw}.image"
        file.write_bytes(data)
        release = Release(path, hashes_of(data), len(data), said)
        return targets.with_release(self.publisher.targets(), release, now=self.now()), {path: file}

    def release(self, data: bytes = IMAGE, said: Custom | None = None) -> None:
        """Signed by both, and published."""
        self.adopt(*self.with_one(data, said))

    def stolen(self, listed: Metadata[Targets], images: dict[str, Path], by: tuple[FileKey, ...]) -> None:
        """Published by who has the server and its key, with whatever signatures they got."""
        for key in by:
            sign(listed, key)
        for path, file in images.items():
            digest = listed.signed.targets[path].hashes["sha256"]
            self.store.put_image(path, digest, file)
        self.store.put("targets", listed.signed.version, listed.to_bytes())
        self.publisher.refresh(SERVER, force=True)

    def copied(self, to: Path) -> "Repository":
        """As it is now."""
        shutil.copytree(self.directory, to)
        return Repository(to, self.now)

    def file(self, role: str) -> Path:
        """The newest of *role*."""
        names = (self.directory / METADATA).glob("timestamp.json" if role == "timestamp" else f"*.{role}.json")
        return max(names, key=lambda each: int(each.name.partition(".")[0]) if role != "timestamp" else 0)

    def image(self, path: str = GOOD, data: bytes = IMAGE) -> Path:
        found = self.store.image(stored_path(path, hashes_of(data)))
        assert found is not None
        return found


def hashes_of(data: bytes) -> str:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize().hex()


class Shown:
    """The port of the listener, over whichever repository a test shows."""

    repository: Repository

    def metadata(self, name: str) -> bytes | None:
        return self.repository.store.metadata(name)

    def image(self, stored: str) -> Path | None:
        return self.repository.store.image(stored)

    def root(self) -> str:
        return self.repository.store.root()


@dataclass
class Network:
    """Between listener and device. ``trickle``: what of paths comes byte by byte; ``cut_after``: bytes of an image
    until the connection is cut, None: never; ``hold_after``: the same, until nothing more comes. ``ranges``: asked
    for of images, as they came.
    """

    trickle: str = ""
    cut_after: int | None = None
    hold_after: int | None = None
    ranges: list[str] = field(default_factory=list)

    def around(self, app: ASGIApp) -> ASGIApp:
        async def between(scope: Scope, receive: Receive, send: Send) -> None:
            path = scope.get("path", "")
            if scope["type"] == "http" and path.startswith(TARGETS_PATH):
                self.ranges.append(dict(scope["headers"]).get(b"range", b"").decode())
            if self.trickle and path.startswith(self.trickle):
                await app(scope, receive, _byte_by_byte(receive, send))
            elif self.cut_after is not None and path.startswith(TARGETS_PATH):
                await app(scope, receive, _cut(self.cut_after, send))
            elif self.hold_after is not None and path.startswith(TARGETS_PATH):
                await app(scope, receive, _cut(self.hold_after, send, receive))
            else:
                await app(scope, receive, send)

        return between


def _byte_by_byte(receive: Receive, send: Send) -> Send:
    async def slowly(message: Message) -> None:
        if message["type"] != "http.response.body":
            await send(message)
            return
        for at in range(len(message.get("body", b""))):
            await send({**message, "body": message["body"][at : at + 1], "more_body": True})
            with contextlib.suppress(TimeoutError):  # until the other side has had enough
                async with asyncio.timeout(0.05):
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    raise ConnectionError
        await send({**message, "body": b""})

    return slowly


def _cut(after: int, send: Send, receive: Receive | None = None) -> Send:
    """*receive*: cut only once the other side has ended."""
    left = after

    async def cut(message: Message) -> None:
        nonlocal left
        body = message.get("body", b"")
        if body and len(body) > left:
            if left:
                await send({**message, "body": body[:left], "more_body": True})
            while receive is not None and (await receive())["type"] != "http.disconnect":
                pass
            raise ConnectionError("cut")
        left -= len(body)
        await send(message)

    return cut


@dataclass
class Stage:
    """One test's: a repository that is shown to one enrolled device."""

    desk: Office
    shown: Shown
    network: Network
    directory: Path
    device: Path

    @property
    def repository(self) -> Repository:
        return self.shown.repository

    def show(self, repository: Repository) -> None:
        self.shown.repository = repository

    @property
    def state(self) -> Path:
        return self.device / "state/releases"

    def fetch(self, path: str = GOOD, *, installed: int = 0, hw: str = HW, not_before_ms: int = 0) -> Fetched:
        pace = HURRIED if self.network.trickle else USUAL
        self.desk.later(MINUTE_D)  # or it asks too often
        wanted = Wanted(path, hw, ImageKind.MCU, installed, not_before_ms)
        return fetch_release(config.load(self.device / "agent.toml"), wanted, pace=pace)

    def kept(self) -> list[bytes]:
        """Every image that the device has taken."""
        return [each.read_bytes() for each in (self.state / "images").glob("*") if each.suffix != ".part"]

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """Enrolled, and of this device."""
        self.desk.later(MINUTE_D)
        context = ssl.create_default_context(cafile=str(self.desk.ca_file))
        with httpx.Client(base_url=self.desk.url, verify=context, timeout=20) as client:
            nonce = client.get("/nonce").json()["nonce"]
            key = load_pem_private_key((self.device / "device.key").read_bytes(), None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            signature = base64.b64encode(key.sign(session_proof(nonce), ec.ECDSA(hashes.SHA256()))).decode()
            leaf = x509.first((self.device / "device.crt").read_bytes())
            body = {"certificate": leaf, "nonce": nonce, "signature": signature}
            client.headers["Authorization"] = f"Bearer {client.post('/uploads/session', json=body).json()['session']}"
            yield client

    def credulous(self, path: str = GOOD) -> bytes:
        """What a client takes that follows the same files and checks nothing but TLS."""

        def signed(name: str) -> Any:
            return json.loads(client.get(f"{METADATA_PATH}/{name}").content)["signed"]

        with self.client() as client:
            snapshot = signed("timestamp.json")["meta"]["snapshot.json"]["version"]
            listed = signed(f"{snapshot}.snapshot.json")["meta"]["targets.json"]["version"]
            target = signed(f"{listed}.targets.json")["targets"][path]
            return client.get(f"{TARGETS_PATH}/{stored_path(path, target['hashes']['sha256'])}").content


@contextmanager
def desk_in(directory: Path) -> Iterator[tuple[Office, Shown, Network, Path]]:
    """A listener that gives releases, and the files of a device that enrolled there."""
    shown, network = Shown(), Network()
    shown.repository = Repository(directory / "first")
    shown.repository.begin()
    shown.repository.release()
    with office(directory / "office", releases=shown, around=network.around) as desk:
        enrolling.enroll(
            server=desk.url, claim=desk.claim(), ca_file=desk.ca_file, directory=directory / "car", again=False
        )
        yield desk, shown, network, directory / "car"


@contextmanager
def stage_of(made: tuple[Office, Shown, Network, Path], directory: Path) -> Iterator[Stage]:
    """For one test: copies of repository and device; afterwards all is as it was."""
    desk, shown, network, device = made
    first = shown.repository
    shutil.copytree(device, directory / "car")
    shown.repository = first.copied(directory / "repository")
    try:
        yield Stage(desk, shown, network, directory, directory / "car")
    finally:
        shown.repository, network.trickle, network.cut_after, network.hold_after = first, "", None, None
        network.ranges.clear()


@contextmanager
def trickling(desk: Office) -> Iterator[str]:
    """A listener with the certificate of *desk* whose answers' heads never end; where it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(desk.directory / "enrolment.crt", desk.directory / "enrolment.key")
    over = threading.Event()

    def trickle() -> None:
        with contextlib.suppress(OSError), context.wrap_socket(listener.accept()[0], server_side=True) as spoken:
            spoken.sendall(b"HTTP/1.1 200 OK\r\nX-Head: ")
            while not over.wait(0.05):
                spoken.sendall(b"x")

    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=trickle, name="trickling")
        thread.start()
        try:
            yield f"https://{HOST}:{listener.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


def days_ago(days: float) -> Callable[[], datetime]:
    then = datetime.now(UTC) - timedelta(days=days)
    return lambda: then
