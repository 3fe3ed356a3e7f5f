"""Why readings are not there. Pure: the ledger's numbers, the device's last birth and its journal in, reasons out.

A gap of numbers is proved by a later number, a birth or the property ``last``; a silence by two neighbouring
batches that lie too far apart, or by the server's clock while it lasts.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from broker_config.messages import StreamState
from broker_config.ranges import Ranges, both, minus
from fleet_server.telemetry.ledger import StreamLedger
from fleet_server.telemetry.store import EventFact, Silence, StreamKey
from fleet_server.telemetry.view import Gap, GapReason

START: Final = "agent.start"
STOP: Final = "agent.stop"


def of_numbers(ledger: StreamLedger, state: StreamState | None, *, born: bool) -> list[Gap]:
    """Gaps in a stream's numbers.

    Args:
        ledger: what the server has.
        state: what the device's last birth said of this stream and life, None if it did not name it.
        born: whether any birth of the device is known; if so, a life that it does not name any more is one that
            the device no longer has.
    """
    gaps = [
        _numbers(ledger.key, GapReason.EVICTED, r, "the device dropped it before a receipt")
        for r in ledger.gone.ranges()
    ]
    gaps += [
        _numbers(ledger.key, GapReason.QUARANTINED, r, "kept raw in quarantine") for r in ledger.quarantined.ranges()
    ]
    missing = ledger.unseen()
    if not missing:
        return gaps
    if state is None:
        detail = "the device no longer has this life" if born else "no birth of the device is known"
        return gaps + [_numbers(ledger.key, GapReason.UNEXPLAINED, r, detail) for r in missing]
    lost = both(missing, (*state.trimmed, (1, state.first - 1)))
    gaps += [_numbers(ledger.key, GapReason.LOST, r, "receipted once, and not in the store") for r in lost]
    waiting = minus(minus(missing, lost), state.gone)
    gaps += [_numbers(ledger.key, GapReason.WAITING, r, "in the device's spool") for r in waiting]
    return gaps


def _numbers(key: StreamKey, reason: GapReason, seqs: tuple[int, int], detail: str) -> Gap:
    waiting = reason is GapReason.WAITING
    return Gap(key.device, key.stream, key.life, reason, seqs[0], seqs[1], None, None, waiting, detail)


def of_silence(silence: Silence, events: Iterable[EventFact]) -> Gap:
    """A silence between two batches, explained by what the device's journal says happened meanwhile."""
    reason, detail = GapReason.UNEXPLAINED, "the journal says nothing of it"
    for event in events:
        if event.kind == START and _within(silence, event):
            clean = bool(msgspec.json.decode(event.data_json).get("clean"))
            reason = GapReason.OFF if clean else GapReason.REBOOTING
            detail = "the agent had been stopped" if clean else "the agent had died; what was not sealed is gone"
            break
    key = silence.key
    return Gap(key.device, key.stream, key.life, reason, 0, 0, silence.from_ms, silence.to_ms, False, detail)


def _within(silence: Silence, event: EventFact) -> bool:
    """Whether it happened after the silence began and not after it ended.

    By the boot's own clock where the boot is the same, because the other may have been moved meanwhile.
    """
    if event.boot == silence.to_boot:
        if event.mono > silence.to_mono:
            return False
        return silence.from_boot != silence.to_boot or event.mono >= silence.from_mono
    return event.boot == silence.from_boot and event.mono >= silence.from_mono


def still_open(
    ledger: StreamLedger, *, heard_ms: int, now_ms: int, connected: bool, stopped: bool, grace_ms: int
) -> list[Gap]:
    """A stream with a cadence of which nothing has come for too long.

    Args:
        heard_ms: when the stream's newest batch came, by the server's clock.
        now_ms: the server's clock.
        connected: the device is connected.
        stopped: its agent said that it was asked to stop.
        grace_ms: what sealing, the way here and a resend may take beside the cadence.
    """
    if not overdue(ledger, heard_ms=heard_ms, now_ms=now_ms, grace_ms=grace_ms):
        return []
    if stopped:
        reason, detail = GapReason.OFF, "the agent has been stopped"
    elif connected:
        reason, detail = GapReason.UNEXPLAINED, "connected, and nothing comes"
    else:
        reason, detail = GapReason.UNEXPLAINED, "not connected; it will say what happened when it is back"
    key = ledger.key
    return [Gap(key.device, key.stream, key.life, reason, 0, 0, heard_ms, None, True, detail)]


def overdue(ledger: StreamLedger, *, heard_ms: int, now_ms: int, grace_ms: int) -> bool:
    """Whether a stream with a cadence has been silent for too long; the arguments are :func:`still_open`'s."""
    return bool(ledger.silence_ms) and now_ms - heard_ms > ledger.silence_ms + grace_ms


def ordered(gaps: Iterable[Gap]) -> list[Gap]:
    """By device, stream, life, then numbers and time."""
    return sorted(gaps, key=lambda g: (g.device, g.stream, g.life, g.first_seq, g.from_ms or 0))


def around(silences: Sequence[Silence], margin_ms: int) -> Ranges:
    """The span of device time in which the events that explain these silences lie; empty if there are none."""
    if not silences:
        return ()
    low = min(min(s.from_ms, s.to_ms) for s in silences) - margin_ms
    high = max(max(s.from_ms, s.to_ms) for s in silences) + margin_ms
    return ((low, high),)
