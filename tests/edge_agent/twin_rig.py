"""The server's side of twins for tests: answers what a device asks and reports, as the contract says."""

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from broker_config import signing, topics, twin
from broker_config.signing import Kind
from broker_config.topics import Down, Up
from broker_config.twin import AskTwin, Desired, Reported, TwinState
from tests.edge_agent import rig as rigs
from tests.orders import ROOTS, SERVER, Key, claims, order
from tests.servers import Site

AHEAD_MS = 10_000
ORDERS = '[orders]\nsigners_file = "signers.json"\n'
AGENTS = "".join(f'{name} = {{ handler = "agent" }}\n' for name in ("broker_host", "broker_port", "keep_alive_s"))


def lay_out(directory: Path, broker: Site | None, *, profile: str = "", more: str = "", **how: str) -> rigs.Rig:
    """A device whose signer is the tests', and which applies the agent's own settings. *more*: of the profile."""
    directory.mkdir(exist_ok=True)
    (directory / "signers.json").write_bytes(signing.encode(ROOTS))
    (directory / "signers.json").chmod(0o600)
    path = profile or rigs.fast_profile(directory)
    if not profile:
        text = Path(path).read_text()
        Path(path).write_text(f"{text}{more}[settings]\n{AGENTS}")
    return rigs.lay_out(directory, broker, profile=path, extra=ORDERS, **how)


@dataclass
class Twins:
    """``desired`` None: nothing was ever. ``silent``: it hears, and says nothing."""

    server: rigs.Server
    desired: Desired | None = None
    signer: Key = SERVER
    silent: bool = False
    reported: list[Reported] = field(default_factory=list)
    asked: list[AskTwin] = field(default_factory=list)
    _envelopes: dict[int, bytes] = field(default_factory=dict)

    async def desire(self, desired: Desired, *, say: bool = True) -> None:
        """From now on; *say*: the order goes out at once."""
        self.desired = desired
        if say:
            await self.say(self.envelope(desired))

    def envelope(self, desired: Desired) -> bytes:
        """Signed once, and then the same again."""
        if desired.version not in self._envelopes:
            now_ms = time.time_ns() // 1_000_000
            # a device on a busy machine may take the server's clock to be a little ahead of what it is
            told = claims(kind=Kind.TWIN, at_ms=now_ms, counter=now_ms + AHEAD_MS, body=desired)
            self._envelopes[desired.version] = order(told, self.signer)
        return self._envelopes[desired.version]

    async def say(self, payload: bytes) -> None:
        """On dn/twin."""
        await self.server.client.publish(topics.down(rigs.DEVICE, Down.TWIN), payload, qos=1)

    async def hint(self, desired: int) -> None:
        known = self.reported[-1].version if self.reported else 0
        await self.say(twin.encode(TwinState(1, desired, known)))

    async def told(self, channel: Up, payload: bytes) -> None:
        assert channel is Up.TWIN
        said = twin.decode_said(payload)
        newest = self.desired.version if self.desired is not None else 0
        if isinstance(said, Reported):
            self.reported.append(said)
        else:
            self.asked.append(said)
        if self.silent:
            return
        if isinstance(said, AskTwin) and self.desired is not None and newest > said.have:
            await self.say(self.envelope(self.desired))
        else:
            await self.hint(newest)

    @property
    def last(self) -> Reported:
        return self.reported[-1]

    def states(self, version: int) -> list[str]:
        """Of what was reported of *version*, each once in a row."""
        out: list[str] = []
        for each in self.reported:
            if each.desired == version and out[-1:] != [each.state.value]:
                out.append(each.state.value)
        return out


@contextlib.asynccontextmanager
async def twins(broker: Site) -> AsyncIterator[Twins]:
    """A server that also hears of twins."""
    async with rigs.server(broker) as server:
        found = Twins(server)
        server.other = found.told
        await server.client.subscribe(topics.up_filter(Up.TWIN), qos=1)
        yield found
