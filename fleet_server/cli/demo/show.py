"""What is seen, and what the keys do, while all of the demo runs."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Final

from rich.console import Console
from rich.live import Live

from broker_config.ids import DeviceId
from fleet_server.cli.demo import outages, screen, watch
from fleet_server.cli.demo.changes import Changes
from fleet_server.cli.demo.fleet import Broker
from fleet_server.cli.demo.keyboard import Stop, has_keys
from fleet_server.cli.demo.programs import Part, Programs
from fleet_server.cli.demo.rig import Rig
from fleet_server.cli.server import CommandError, Server

TICK_S: Final = 1.0
MOMENTS_MAX: Final = 60
MEND_S_MAX: Final = 15.0
POLL_S: Final = 0.1


def now_ms() -> int:
    """Ms since the epoch."""
    return time.time_ns() // 1_000_000


class Show:
    """What is seen and asked for while all runs."""

    def __init__(
        self, rig: Rig, programs: Programs, server: Server, *, begin_s: float, begin_ms: int, broker: Broker
    ) -> None:
        self._rig = rig
        self._programs = programs
        self._server = server
        self._begin_s = begin_s
        self._begin_ms = begin_ms
        self._broker = broker
        self._shown_s = time.monotonic()
        self._changes: Changes | None = None
        self._outages = outages.Outages(rig.devices)
        self._had_outages = False
        self._script: list[tuple[float, str]] = []
        self._console = Console()
        self.all_reporting_s: float | None = None
        self.rss_bytes_max: dict[DeviceId, int] = dict.fromkeys(rig.devices, 0)

    def run(
        self,
        stop: Stop,
        seconds: float | None,
        script: Sequence[tuple[float, str]] = (),
        changes: Changes | None = None,
    ) -> watch.Moment:
        """Show what happens until *stop*, or for *seconds*; return the last moment. *script*: keys that press
        themselves, and when. *changes*: rollouts that begin by themselves.
        """
        self._changes = changes
        self._script = [(self._shown_s + at_s, key) for at_s, key in script]
        deadline = None if seconds is None else self._shown_s + seconds
        live = Live(console=self._console, auto_refresh=False) if sys.stdout.isatty() else None
        moments = [self.look()]
        with live if live is not None else nullcontext():
            while not stop.is_set() and (deadline is None or time.monotonic() < deadline):
                next_s = time.monotonic() + TICK_S
                moments = [*moments, self._checked_look()][-MOMENTS_MAX:]
                if live is not None:
                    self._draw(live, moments)
                else:
                    print(screen.line(moments), flush=True)
                self._wait(stop, min(next_s, next_s if deadline is None else deadline), live, moments)
        return moments[-1]

    def look(self) -> watch.Moment:
        """What the API says now."""
        rss_bytes = {device: self._programs.rss_bytes(self._rig.agent(device).name) for device in self._rig.devices}
        self.rss_bytes_max = {device: max(size, self.rss_bytes_max[device]) for device, size in rss_bytes.items()}
        found = watch.moment(
            self._server,
            at_s=time.monotonic() - self._shown_s,
            now_ms=now_ms(),
            begin_ms=self._begin_ms,
            rss_bytes=rss_bytes,
            files_made=len(watch.made(self._rig)),
        )
        if self.all_reporting_s is None and found.reporting_count == len(self._rig.devices):
            self.all_reporting_s = time.monotonic() - self._begin_s
        return found

    def mended(self, last: watch.Moment) -> watch.Moment:
        """End every outage, so that what waits in the spools can go out; the last moment, which may be *last*."""
        self._carry_out(outages.Change(ended=self._outages.current))
        deadline = time.monotonic() + MEND_S_MAX
        while self._had_outages and not self._is_whole(last) and time.monotonic() < deadline:
            time.sleep(POLL_S)
            last = self.look()
        return last

    def _is_whole(self, last: watch.Moment) -> bool:
        missing = sum(stream.missing for stream in last.streams)
        return missing == 0 and last.facts.connected and last.reporting_count == len(self._rig.devices)

    def _checked_look(self) -> watch.Moment:
        self._programs.check()
        try:
            return self._with_changes(self.look())
        except CommandError:
            self._programs.check()  # says better why the API does not answer
            raise

    def _with_changes(self, found: watch.Moment) -> watch.Moment:
        if self._changes is None:
            return found
        self._changes.look(found.at_s)
        return replace(found, rollouts=tuple(self._changes.rollouts))

    def _draw(self, live: Live, moments: list[watch.Moment]) -> None:
        frame = screen.Frame(
            site=str(self._rig.directory),
            url=self._rig.place.url,
            token_file=str(self._rig.place.token_file),
            broker=self._broker,
            outages=self._outages,
            now_s=time.monotonic(),
            rows=self._console.height,
            has_keys=has_keys(),
        )
        live.update(screen.screen(moments, frame), refresh=True)

    def _wait(self, stop: Stop, until_s: float, live: Live | None, moments: list[watch.Moment]) -> None:
        """Wait for the next tick; do at once what a key asks for."""
        while not stop.is_set():
            self._outages, change = outages.due(self._outages, time.monotonic())
            self._carry_out(change)
            keys = stop.wait(until_s - time.monotonic()) + self._scripted()
            for key in keys:
                self._outages, change = outages.pressed(self._outages, key, time.monotonic())
                self._carry_out(change)
                if change.quit:
                    stop.set()
            if keys and live is not None:
                self._draw(live, moments)
            if time.monotonic() >= until_s:
                return

    def _scripted(self) -> str:
        now_s = time.monotonic()
        due = "".join(key for at_s, key in self._script if at_s <= now_s)
        self._script = self._script[len(due) :]
        return due

    def _carry_out(self, change: outages.Change) -> None:
        for part in self._parts(change.began):
            self._had_outages = True
            self._programs.kill(part.name)
        for part in self._parts(change.ended):
            self._programs.start(part)

    def _parts(self, found: Iterable[outages.Outage]) -> Iterator[Part]:
        return (part for outage in found for part in self._rig.parts(outage))
