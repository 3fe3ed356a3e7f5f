"""The same file by other ways, for the pipe's benchmark: HTTPS ranges as a dock sends them, and tusd where it is."""

import asyncio
import http.client
import multiprocessing
import ssl
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from broker_config import transfer
from broker_config.enrolment import PUT_BYTES_MAX
from tests.benchmarks.data import data_of
from tests.enrolment import office
from tests.fleet_server.api.docked import CAR, Dock, Place, enrolled
from tests.fleet_server.evidence.served import Evidence
from tests.fleet_server.evidence.upload_rig import File, manifest_of
from tests.fleet_server.telemetry.service_rig import now_ms
from tests.servers import HOST, accepts, free_port, program, wait_until

PUTS_AT_ONCE: Final = 4
SEED: Final = 7


class _To(NamedTuple):
    """Where ranges of the file go: ``paths`` by their first byte, each ``step_bytes`` long."""

    url: str
    ca_file: str
    method: str
    headers: Mapping[str, str]
    paths: Mapping[int, str]
    step_bytes: int


def _send(to: _To, size: int, told: "multiprocessing.Queue[float]") -> None:
    """In a process of its own, as a device would: seconds until the last answer, which comes once it is durable."""
    data = memoryview(data_of(SEED, size))
    host = urlsplit(to.url)
    assert host.hostname is not None

    def puts(share: int) -> None:
        if host.scheme == "https":
            context = ssl.create_default_context(cafile=to.ca_file)
            link: http.client.HTTPConnection = http.client.HTTPSConnection(
                str(host.hostname), host.port, context=context
            )
        else:
            link = http.client.HTTPConnection(str(host.hostname), host.port)
        for first, path in list(to.paths.items())[share::PUTS_AT_ONCE]:
            link.request(to.method, path, data[first : first + to.step_bytes], dict(to.headers))
            answer = link.getresponse()
            said = answer.read()
            assert answer.status in {200, 204}, (answer.status, said)
        link.close()

    began_s = time.monotonic()
    with ThreadPoolExecutor(PUTS_AT_ONCE) as threads:
        list(threads.map(puts, range(PUTS_AT_ONCE)))
    told.put(time.monotonic() - began_s)


def _seconds(to: _To, size: int) -> float:
    context = multiprocessing.get_context("spawn")
    told: multiprocessing.Queue[float] = context.Queue()
    sender = context.Process(target=_send, args=(to, size, told))
    sender.start()
    sender.join()
    assert sender.exitcode == 0, f"the sender ended with {sender.exitcode}"
    return told.get(timeout=1.0)


def https(directory: Path, evidence: Evidence, size: int, chunk_bytes: int) -> float:
    """Bytes a second by PUT over TLS to the product's own listener, until all chunks are durable."""
    dock = Dock()

    async def served(do: Callable[[], float]) -> float:
        async with evidence.serving(*place.office.keys.chain()) as service:
            dock.service = service
            return await asyncio.to_thread(do)

    def sent() -> float:
        data = data_of(SEED, size)
        file = File(data, manifest_of(data, CAR, chunk_bytes=chunk_bytes, at_ms=now_ms()), place.identity)
        with place.docked() as client:
            client.post("/uploads", content=transfer.encode(file.offer)).raise_for_status()
            headers = {"Authorization": client.headers["Authorization"]}
        paths = {at: f"/uploads/{file.upload}/chunks/{at // chunk_bytes}" for at in range(0, size, PUT_BYTES_MAX)}
        to = _To(place.office.url, str(place.office.ca_file), "PUT", headers, paths, PUT_BYTES_MAX)
        return _seconds(to, size)

    with office(directory, docking=dock) as running:
        place = Place(running, evidence, dock, enrolled(running))
        return size / asyncio.run(served(sent))


def tusd(directory: Path, size: int) -> float | None:
    """Bytes a second in one PATCH without TLS; it does not sync. None: there is none on this machine."""
    found = program("tusd")
    if found is None:
        return None
    port = free_port()
    directory.mkdir()
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(
            [found, "-host", HOST, "-port", str(port), "-upload-dir", str(directory)], stdout=log, stderr=log
        )
    try:
        wait_until(lambda: accepts(port), "tusd accepts")
        link = http.client.HTTPConnection(HOST, port)
        link.request("POST", "/files/", headers={"Tus-Resumable": "1.0.0", "Upload-Length": str(size)})
        path = urlsplit(str(link.getresponse().headers["Location"])).path
        headers = {
            "Tus-Resumable": "1.0.0",
            "Upload-Offset": "0",
            "Content-Type": "application/offset+octet-stream",
        }
        to = _To(f"http://{HOST}:{port}", "", "PATCH", headers, {0: path}, size)
        return size / _seconds(to, size)
    finally:
        server.kill()
        server.wait()
