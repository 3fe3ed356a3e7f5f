"""How pages name states: a key of the catalogue, and a mark whose shape says it to who sees no colours. Pure."""

from dataclasses import replace
from typing import Final, NamedTuple

from fleet_server.access.states import State as Certificate
from fleet_server.change.rollout_state import Phase, State
from fleet_server.change.twins import Drift
from fleet_server.evidence.custody import Event
from fleet_server.evidence.pieces import Damage, HolderBy
from fleet_server.outbound.happenings import Kind, News, Severity
from fleet_server.telemetry.view import DevicePresence, GapReason
from fleet_server.texts import marked


class Word(NamedTuple):
    """``mark``: ``good`` (a disc), ``warning`` (a triangle), ``alarm`` (a square), ``idle`` (a ring): a class of the
    style sheet. ``key``: of the catalogue.
    """

    mark: str
    key: str


NEVER: Final = Word("idle", marked("never heard of"))
AWAY: Final = Word("warning", marked("not connected"))
STOPPED: Final = Word("idle", marked("switched off in order"))
SILENT: Final = Word("warning", marked("connected, does not report"))
UNWELL: Final = Word("warning", marked("connected, not well"))
WELL: Final = Word("good", marked("well"))
NO: Final = Word("warning", marked("no"))

REASONS: Final = {
    GapReason.OFF: Word("idle", marked("switched off")),
    GapReason.REBOOTING: Word("idle", marked("restarted")),
    GapReason.EVICTED: Word("warning", marked("no room on the device")),
    GapReason.QUARANTINED: Word("warning", marked("in quarantine")),
    GapReason.WAITING: Word("idle", marked("still on the device")),
    GapReason.LOST: Word("alarm", marked("lost after its receipt")),
    GapReason.UNEXPLAINED: Word("alarm", marked("without a reason")),
}
DRIFTS: Final = {
    Drift.IN_SYNC: Word("good", marked("as desired")),
    Drift.PENDING: Word("idle", marked("under way")),
    Drift.DEFERRED: Word("idle", marked("put off by the device")),
    Drift.REVERTED: Word("warning", marked("undone by the device")),
    Drift.FAILED: Word("alarm", marked("failed")),
    Drift.REFUSED: Word("alarm", marked("refused by the device")),
    Drift.DRIFTED: Word("warning", marked("other than desired")),
    Drift.NEVER_REPORTED: Word("idle", marked("never reported")),
}
PHASES: Final = {
    Phase.WAITING_APPROVAL: Word("idle", marked("waits for a second person")),
    Phase.RUNNING: Word("good", marked("running")),
    Phase.PAUSED: Word("warning", marked("paused")),
    Phase.CANCELING: Word("warning", marked("being canceled")),
    Phase.ROLLING_BACK: Word("warning", marked("being rolled back")),
    Phase.COMMITTING: Word("good", marked("being put into its layer")),
    Phase.COMPLETED: Word("good", marked("completed")),
    Phase.CANCELED: Word("idle", marked("canceled")),
    Phase.ROLLED_BACK: Word("idle", marked("rolled back")),
}
STATES: Final = {
    State.QUEUED: Word("idle", marked("waits for its turn")),
    State.OFFERED: Word("idle", marked("offered")),
    State.WAITING: Word("idle", marked("waits on the device")),
    State.APPLYING: Word("idle", marked("applying")),
    State.VERIFYING: Word("idle", marked("being watched")),
    State.ROLLING_BACK: Word("warning", marked("being rolled back")),
    State.SUCCEEDED: Word("good", marked("succeeded")),
    State.FAILED: Word("alarm", marked("failed")),
    State.REJECTED: Word("alarm", marked("refused by the device")),
    State.TIMED_OUT: Word("warning", marked("took too long")),
    State.SILENT: Word("warning", marked("fell silent")),
    State.CANCELED: Word("idle", marked("canceled")),
    State.ROLLED_BACK: Word("idle", marked("rolled back")),
    State.SUPERSEDED: Word("idle", marked("taken over by a newer one")),
}
SEVERITIES: Final = {
    Severity.INFO: Word("idle", marked("note")),
    Severity.WARNING: Word("warning", marked("warning")),
    Severity.ALARM: Word("alarm", marked("alarm")),
}
OVER: Final = Word("good", marked("note"))
DAMAGES: Final = {
    Damage.NONE: Word("good", marked("as it arrived")),
    Damage.MISSING: Word("alarm", marked("its content is missing")),
    Damage.ALTERED: Word("alarm", marked("its content was altered")),
    Damage.UNREADABLE: Word("alarm", marked("its content cannot be read")),
    Damage.UNLIKE_LOG: Word("alarm", marked("not what the log says")),
}
CERTIFICATES: Final = {
    Certificate.ACTIVE: Word("good", marked("good")),
    Certificate.SUPERSEDED: Word("idle", marked("replaced by a newer one")),
    Certificate.REVOKED: Word("alarm", marked("revoked")),
}
HOLDERS: Final = {
    HolderBy.MANIFEST: marked("as the device signed"),
    HolderBy.JOURNAL: marked("by the device's journal"),
    HolderBy.ASSIGNMENT: marked("by the book of assignments"),
}
CUSTODY: Final = {
    Event.RECEIVED: marked("received from the device"),
    Event.VERIFIED: marked("read again and verified"),
    Event.VIEWED: marked("viewed"),
    Event.EXPORTED: marked("exported"),
    Event.CLASSIFIED: marked("classified"),
    Event.HELD: marked("held"),
    Event.RELEASED: marked("released from a hold"),
    Event.DELETION_ASKED: marked("deletion asked for"),
    Event.DELETION_APPROVED: marked("deletion approved"),
    Event.DELETION_WITHDRAWN: marked("deletion withdrawn"),
    Event.DELETED: marked("deleted"),
    Event.NOTES_ERASED: marked("notes erased"),
    Event.DAMAGED: marked("found damaged"),
    Event.SOUND: marked("found sound again"),
}
"""Of pieces; an event that is none of them stands for itself."""
CLASSES: Final = {
    "body_camera": marked("Body camera"),
    "in_car_terminal": marked("In-car terminal"),
    "traffic_light": marked("Traffic signal controller"),
    "interrogation_room": marked("Interrogation room"),
    "host": marked("Board"),
}
NODES: Final = {
    "centre": marked("command centre"),
    "station": marked("police station"),
    "post": marked("community post"),
    "platform": marked("security platform"),
}


def presence(seen: DevicePresence | None) -> Word:
    """Of a device: the first of its three facts that is not so."""
    if seen is None:
        return NEVER
    if not seen.connected:
        return STOPPED if seen.stopped else AWAY
    if seen.overdue:
        return SILENT
    return UNWELL if seen.faults else WELL


def happened(news: News) -> Word:
    """How bad it is; what is over is not."""
    return OVER if news.kind is Kind.ALERT_CLEARED else SEVERITIES[news.severity]


def subject(news: News) -> News:
    """What it is about; :func:`happened` says that it is over, so its text need not."""
    return replace(news, kind=Kind.ALERT_OPENED) if news.kind is Kind.ALERT_CLEARED else news


def device_class(name: str) -> str:
    """The key of a device class's name; of one that this server's version does not know, the name."""
    return CLASSES.get(name, name)
