"""Answers what the API may ask of telemetry, from ingest's ledgers and the store's rows."""

from collections.abc import Callable, Iterable
from typing import Final

from broker_config.ranges import count
from fleet_server.telemetry import gaps, presence
from fleet_server.telemetry.ingest import DeviceState, Ingest
from fleet_server.telemetry.ledger import StreamLedger
from fleet_server.telemetry.store import BatchStore, EventFact, Latest, QuarantineRow, Series, Silence
from fleet_server.telemetry.view import (
    DevicePresence,
    DeviceSummary,
    Gap,
    Heard,
    IngestFacts,
    StreamSummary,
)

SILENCES_MAX: Final = 100_000
EVENTS_MAX: Final = 100_000
EVENT_MARGIN_MS: Final = 3_600_000


class Answers:
    """A :class:`fleet_server.telemetry.view.TelemetryView`; reads only, from any thread."""

    def __init__(
        self,
        ingest: Ingest,
        store: BatchStore,
        *,
        now_ms: Callable[[], int],
        facts: Callable[[], IngestFacts],
        replay: Callable[[int], str],
        grace_ms: int,
    ) -> None:
        self._ingest = ingest
        self._store = store
        self._now_ms = now_ms
        self._facts = facts
        self._replay = replay
        self._grace_ms = grace_ms

    def facts(self) -> IngestFacts:
        return self._facts()

    def devices(self) -> list[DeviceSummary]:
        now_ms = self._now_ms()
        # sorted() copies the values in one step of the interpreter, so ingest may go on meanwhile
        return [self._summary(state, now_ms) for state in sorted(self._ingest.devices.values(), key=_by_id)]

    def device(self, device: str) -> DeviceSummary | None:
        state = self._ingest.devices.get(device)
        return self._summary(state, self._now_ms()) if state else None

    def names(self) -> list[str]:
        return list(self._ingest.devices)

    def presence_of(self, device: str) -> DevicePresence | None:
        state = self._ingest.devices.get(device)
        if state is None:
            return None
        now_ms = self._now_ms()
        seen = self._seen(state, now_ms)
        facts = presence.presence(seen, now_ms)
        device_class = state.birth.device_class if state.birth else ""
        stopped = state.will is not None and state.will.reason == "stop"
        return DevicePresence(
            device, device_class, facts.connected, seen.overdue, seen.faults, seen.willed_ms, stopped, state.clock
        )

    def news(self, devices_max: int) -> list[Heard]:
        waiting = self._ingest.news
        found: list[Heard] = []
        while waiting and len(found) < devices_max:
            device, _ = waiting.popitem()  # one step of the interpreter: ingest may add meanwhile
            state = self._ingest.devices[device]
            birth = state.birth
            if birth is None:
                found.append(Heard(device, "", "", "", "", "", None))
            else:
                said = (birth.device_class, birth.agent, birth.hardware, birth.profile, birth.profile_digest)
                found.append(Heard(device, *said, state.status_ms))
        return found

    def latest(self, device: str | None = None) -> list[Latest]:
        return self._store.latest(device)

    def series(self, device: str, stream: str, *, from_ms: int, to_ms: int, points: int | None = None) -> Series:
        return self._store.series(device, stream, from_ms=from_ms, to_ms=to_ms, points=points)

    def events(self, device: str, *, from_ms: int, to_ms: int, rows_max: int) -> list[EventFact]:
        return self._store.events(device, from_ms=from_ms, to_ms=to_ms, rows_max=rows_max)

    def quarantine(self, *, after_id: int, rows_max: int) -> list[QuarantineRow]:
        return self._store.quarantine(after_id=after_id, rows_max=rows_max)

    def replay(self, row_id: int) -> str:
        return self._replay(row_id)

    def gaps(self, device: str | None, *, from_ms: int, to_ms: int) -> list[Gap]:
        now_ms = self._now_ms()
        if device is None:
            states = list(self._ingest.devices.values())
        else:
            states = [state] if (state := self._ingest.devices.get(device)) else []
        found: list[Gap] = []
        for state in states:
            connected = self._presence(state, now_ms).connected
            stopped = state.will is not None and state.will.reason == "stop"
            for ledger in list(state.ledgers.values()):
                stated = state.stated(ledger.key.stream, ledger.key.life)
                found += gaps.of_numbers(ledger, stated, born=state.birth is not None)
                # a life that is over keeps its place in the birth until all of it is here, and has no cadence
                if stated is not None and stated.every_ms and to_ms >= now_ms:
                    found += gaps.still_open(
                        ledger,
                        heard_ms=ledger.heard_ms,
                        now_ms=now_ms,
                        connected=connected,
                        stopped=stopped,
                        grace_ms=self._grace_ms,
                    )
        found += self._silences(device, from_ms, to_ms)
        return gaps.ordered(found)

    def gaps_of_numbers(self, device: str) -> list[Gap]:
        state = self._ingest.devices.get(device)
        if state is None:
            return []
        found: list[Gap] = []
        for ledger in list(state.ledgers.values()):
            if ledger.unseen() or ledger.gone or ledger.quarantined:  # hardly any has, and to look costs little
                stated = state.stated(ledger.key.stream, ledger.key.life)
                found += gaps.of_numbers(ledger, stated, born=state.birth is not None)
        return found

    def silences(self, *, from_ms: int, to_ms: int) -> list[Gap]:
        return list(self._silences(None, from_ms, to_ms))

    def _presence(self, state: DeviceState, now_ms: int) -> presence.Presence:
        return presence.presence(self._seen(state, now_ms), now_ms)

    def _seen(self, state: DeviceState, now_ms: int) -> presence.Seen:
        birth = state.birth
        overdue = [
            stated.stream
            for stated in (birth.streams if birth else ())
            if stated.every_ms
            and (ledger := state.ledgers.get((stated.stream, stated.life))) is not None
            and gaps.overdue(ledger, heard_ms=ledger.heard_ms, now_ms=now_ms, grace_ms=self._grace_ms)
        ]
        return presence.Seen(
            born=birth is not None,
            willed_ms=state.willed_ms if state.will is not None else None,
            heard_ms=max(state.status_ms or 0, state.record_ms or 0),
            keep_alive_s=birth.keep_alive_s if birth else 0,
            connections_ms=tuple(state.connections_ms),
            overdue=tuple(overdue),
            faults=presence.present(state.faults),
        )

    def _summary(self, state: DeviceState, now_ms: int) -> DeviceSummary:
        birth, facts = state.birth, self._presence(state, now_ms)
        return DeviceSummary(
            device=state.device,
            device_class=birth.device_class if birth else "",
            agent=birth.agent if birth else "",
            connected=facts.connected,
            reporting=facts.reporting,
            healthy=facts.healthy,
            since_ms=facts.since_ms,
            flaps=facts.flaps,
            why=facts.why,
            last_status_ms=state.status_ms,
            last_record_ms=state.record_ms,
            boot=birth.boot if birth else "",
            streams=tuple(_stream(ledger) for ledger in sorted(state.ledgers.values(), key=_by_stream)),
        )

    def _silences(self, device: str | None, from_ms: int, to_ms: int) -> Iterable[Gap]:
        by_device: dict[str, list[Silence]] = {}
        for silence in self._store.silences(device, from_ms=from_ms, to_ms=to_ms, rows_max=SILENCES_MAX):
            by_device.setdefault(silence.key.device, []).append(silence)
        for name, silences in by_device.items():
            ((low, high),) = gaps.around(silences, EVENT_MARGIN_MS)
            events = self._store.events(name, from_ms=low, to_ms=high, rows_max=EVENTS_MAX)
            starts = [event for event in events if event.kind == gaps.START]
            for silence in silences:
                yield gaps.of_silence(silence, starts)


def _by_id(state: DeviceState) -> str:
    return state.device


def _by_stream(ledger: StreamLedger) -> tuple[str, str]:
    return ledger.key.stream, ledger.key.life


def _stream(ledger: StreamLedger) -> StreamSummary:
    held = ledger.seen()
    quarantined, gone = count(ledger.quarantined.ranges()), count(ledger.gone.ranges())
    return StreamSummary(
        stream=ledger.key.stream,
        life=ledger.key.life,
        last=ledger.last,
        held=count(held) - quarantined - gone,
        missing=count(ledger.unseen()),
        quarantined=quarantined,
        gone=gone,
    )
