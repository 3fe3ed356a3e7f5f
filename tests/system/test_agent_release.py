"""An agent replaces itself: a rollout of a release over the real server, its signer, its repository and a real agent
that a supervisor starts. A good one stays, one that crashes and one that no longer reaches the server are undone by
the board alone, and the rollout stops.
"""

import importlib.metadata
import io
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from broker_config.releases import Custom, ImageKind
from edge_agent import launch
from tests.faults.programs import ROOT
from tests.releases import Repository
from tests.servers import wait_until
from tests.system.fleets import Fleet
from tests.system.releasing import DEVICE, UNDO, WAIT_S, begun, device, ends, gaps, releasing, reported, twin

pytestmark = pytest.mark.server("mosquitto")

NO_GOOD = (0, 2, 3)
"""Exit codes after which the agent's unit does not start it again."""
OURS = ("edge_agent", "broker_config", "firmware_bridge")
CRASHES = {"edge_agent/agent.py": "raise RuntimeError('this release is broken')\n"}
DEAF = {"edge_agent/adapters/mqtt.py": "\ndef _tls(*_, **__): raise OSError('no way')\n"}


class Supervisor:
    """As the unit of systemd does it: started again whenever it ends, but for what gets no better by that."""

    def __init__(self, places: Path, config: Path, log: Path) -> None:
        self._argv = [sys.executable, "-I", "-m", "edge_agent.launch", str(places), "run", "--config", str(config)]
        self._log = log
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="supervisor")
        self.starts = 0

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(self._argv, cwd=ROOT, stdout=log, stderr=log)
            self.starts += 1
            if self._process.wait() in NO_GOOD:
                return
            self._over.wait(0.2)

    def stop(self) -> None:
        self._over.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join()


def closure(name: str, extras: frozenset[str], found: set[str]) -> set[str]:
    """The distributions that *name* needs."""
    if name in found:
        return found
    found.add(name)
    for text in importlib.metadata.requires(name) or ():
        need = Requirement(text)
        wanted = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in (*extras, ""))
        if wanted:
            closure(need.name, frozenset(need.extras), found)
    return found


def image_of(version: str, changed: dict[str, str]) -> bytes:
    """What ``pip install --target`` makes of the agent, as *version*. *changed*: put behind what files have, and what
    has only "raise" replaces them.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in sorted(closure("fieldfleet", frozenset({"agent"}), set()) - {"fieldfleet"}):
            for file in importlib.metadata.files(name) or ():
                path = Path(str(file.locate()))
                if ".." not in file.parts and path.is_file() and path.suffix != ".pyc":
                    tar.add(path, str(file))
        for package in OURS:
            for path in sorted((ROOT / package).rglob("*")):
                if path.suffix not in {".py", ".toml"}:
                    continue
                data, at = path.read_bytes(), str(path.relative_to(ROOT))
                data = data.replace(b"fieldfleet/0.1.0", f"fieldfleet/{version}".encode())
                more = changed.get(at, "").encode()
                data = more if more.startswith(b"raise") else data + more
                member = tarfile.TarInfo(at)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with releasing(tmp_path / "site") as made:
        yield made


def test_an_agent_that_proves_itself_stays_and_others_are_undone_by_the_board(fleet: Fleet, tmp_path: Path) -> None:
    repository = Repository(fleet.directory / "server/releases")
    repository.begin()
    names = []
    for counter, changed in enumerate(({}, CRASHES, DEAF), start=2):
        said = Custom("host", ImageKind.AGENT, f"0.{counter}.0", counter)
        listed, images = repository.with_one(image_of(said.version, changed), said)
        repository.adopt(listed, images)
        names.append(next(iter(images)))
    good, broken, deaf = names

    done = fleet.enroll(DEVICE, fleet.claim(DEVICE))
    assert done.returncode == 0, done.stderr
    places = tmp_path / "places"
    places.mkdir()
    agent = Supervisor(places, fleet.device_directory(DEVICE) / "agent.toml", tmp_path / "agent.log")
    agent.start()
    try:
        wait_until(lambda: reported(fleet).get("agent_release") == "", "it says what runs", WAIT_S)

        rollout = begun(fleet, patch={"agent_release": good}, confirm_s=60)
        ends(fleet, rollout, "completed")
        assert reported(fleet)["agent_release"] == good
        assert device(fleet)["agent"] == "fieldfleet/0.2.0"
        assert launch.read(places).in_force == launch.Release("a", good, 2)

        for name, why in ((broken, "started 3 times and never confirmed"), (deaf, "did not prove itself")):
            before = agent.starts
            rollout = begun(
                fleet, patch={"agent_release": name}, confirm_s=10, abort=[UNDO], timers={"silent_s": 600}
            )
            ends(fleet, rollout, "rolled_back")
            wait_until(lambda: device(fleet)["connected"], "it is back", WAIT_S)
            wait_until(lambda: twin(fleet)["drift"] == "in_sync", "it is as it was", WAIT_S)
            assert reported(fleet)["agent_release"] == good
            assert why in launch.read(places).why_given_up(name)
            assert launch.read(places).in_force.name == good
            assert agent.starts > before
        again = begun(fleet, patch={"agent_release": broken}, confirm_s=10, abort=[UNDO])
        before = agent.starts
        ends(fleet, again, "rolled_back")
        assert agent.starts == before
        assert [gap for gap in gaps(fleet) if gap["reason"] in {"lost", "unexplained"}] == []
    finally:
        agent.stop()
