"""The release of a microcontroller behind the board, as a setting: fetched, brought there, tried, kept or gone back.

What brings it there is ``firmware-bridge update`` in a child process, whose journal is in the agent's state: killed
at any moment, it goes on where it was when the change is applied again.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from broker_config.ids import ContractError
from broker_config.releases import ImageKind, hardware, target_path
from broker_config.text import shown
from edge_agent.adapters import child
from edge_agent.adapters.child import ChildError
from edge_agent.adapters.fetching import Relay, fetched_at_last
from edge_agent.adapters.files import write_durably
from edge_agent.handlers import ByMcu
from edge_agent.releases import Fetched, Wanted
from edge_agent.updating import Updating

logger = logging.getLogger(__name__)

FILE: Final = "mcus.json"
JOURNAL: Final = "firmware.sqlite"
FILE_MODE: Final = 0o600
UPDATE_S_MAX: Final = 7_200.0
"""Of one child; a large image over a slow bus, and its trial."""
POSTPONED_AGAIN_S: Final = 30.0
POSTPONED_TIMES_MAX: Final = 120
DONE, POSTPONED = "done", "postponed"


class Kept(msgspec.Struct, frozen=True):
    """What was brought to a microcontroller last and stayed."""

    name: str
    counter: int


class McuRelease:
    """All calls are the agent's loop's."""

    def __init__(
        self,
        config_file: Path,
        state_dir: Path,
        not_before_ms: Callable[[], int],
        updating: Updating,
        relay: Relay | None = None,
    ) -> None:
        """*not_before_ms*: a time that is known to have been. *updating*: told whose port is taken. *relay*: releases
        come over MQTT.
        """
        self._config_file = config_file
        self._file = state_dir / FILE
        self._journal = state_dir / JOURNAL
        self._not_before_ms = not_before_ms
        self._updating = updating
        self._relay = relay

    def in_force(self, handler: ByMcu) -> str:
        """What was brought there and stayed; empty: what it came with, or nobody can tell."""
        return self._kept(handler).name

    def check(self, handler: ByMcu, name: str) -> str:
        """Why *name* is not in force; empty: it is."""
        kept = self.in_force(handler)
        return "" if kept == name else f"expected {name}, {kept or 'what it came with'} runs"

    async def put(self, handler: ByMcu, name: str) -> str:
        """Bring *name* there; why it does not run, if so."""
        try:
            wanted = Wanted(
                target_path(name),
                hardware(handler.hw),
                ImageKind.MCU,
                self._kept(handler).counter,
                self._not_before_ms(),
            )
        except ContractError as error:
            return str(error)
        image, fault = await fetched_at_last(self._config_file, wanted, self._relay)
        if image is None:
            return fault
        for _ in range(POSTPONED_TIMES_MAX):
            verdict, why = await self._update(handler, image)
            if verdict != POSTPONED:
                break
            logger.info("firmware waits", extra={"hw": handler.hw, "why": why})
            await asyncio.sleep(POSTPONED_AGAIN_S)
        return self._keep(handler, name, image) if verdict == DONE else f"{verdict}: {why}"

    async def _update(self, handler: ByMcu, image: Fetched) -> tuple[str, str]:
        """The verdict, and why."""
        arguments = (
            *("update", image.file, "--json", "--port", handler.port, "--device", handler.hw),
            *("--journal", str(self._journal), "--hardware", handler.hardware),
            *("--slot-bytes", str(handler.slot_bytes), "--trailer-bytes", str(handler.trailer_bytes)),
            *("--trial-s", str(handler.trial_s)),
            *(part for key in handler.keys for part in ("--key", key)),
        )
        try:
            with self._updating.of(handler.port):
                ended = await child.ask("firmware_bridge", b"", seconds_max=UPDATE_S_MAX, arguments=arguments)
        except ChildError as error:
            return "failed", shown(error)
        try:
            told = json.loads(ended.answer)
            verdict = ", ".join(str(told[name]) for name in ("verdict", "fault") if told.get(name))
            return verdict, shown(str(told["why"]), 300)
        except (ValueError, KeyError, TypeError):
            return "failed", shown(ended.said.decode(errors="replace").strip()[-300:], 300)

    def _keep(self, handler: ByMcu, name: str, image: Fetched) -> str:
        """Whether that could be stored: empty, or why not."""
        try:
            write_durably(
                self._file,
                msgspec.json.encode({**self._all(), handler.hw: Kept(name, image.counter)}),
                FILE_MODE,
            )
        except OSError as error:
            return f"{FILE}: {error.strerror or error}"
        return ""

    def _kept(self, handler: ByMcu) -> Kept:
        return self._all().get(handler.hw, Kept("", 0))

    def _all(self) -> dict[str, Kept]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, Kept])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            logger.warning("firmware not known", extra={"why": shown(error)})
            return {}
