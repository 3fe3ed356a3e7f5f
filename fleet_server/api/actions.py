"""What each request that changes something is called in the audit log, and what of it is the subject.

Every unsafe operation of the API has a line here; a test walks the OpenAPI document and fails for one without. One
that is forgotten all the same is recorded, by its method and path.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
from starlette.routing import compile_path

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
UNNAMED: Final = "request"


class Action(NamedTuple):
    """``subject``: the parameter of the path that names it; if the path has none, the field of the JSON body.
    ``told``: fields of the body that are recorded as they are, so never one that holds a secret. ``hushed``: not even
    the body's digest is: people write in it what may have to be erased, and a short text is found by its hash.
    """

    name: str
    subject: str = ""
    told: tuple[str, ...] = ()
    hushed: bool = False


CHANGES: Final[Mapping[tuple[str, str], Action]] = {
    ("PUT", "/v1/devices/{device}/registration"): Action("device.register", "device"),
    ("PATCH", "/v1/devices/{device}/registration"): Action("device.change", "device"),
    ("DELETE", "/v1/devices/{device}/registration"): Action("device.forget", "device"),
    ("PUT", "/v1/org-nodes/{node}"): Action("org_node.put", "node"),
    ("PATCH", "/v1/org-nodes/{node}"): Action("org_node.change", "node"),
    ("DELETE", "/v1/org-nodes/{node}"): Action("org_node.drop", "node"),
    ("PUT", "/v1/duty-units/{unit}"): Action("duty_unit.put", "unit"),
    ("PATCH", "/v1/duty-units/{unit}"): Action("duty_unit.change", "unit"),
    ("DELETE", "/v1/duty-units/{unit}"): Action("duty_unit.drop", "unit"),
    ("POST", "/v1/imports/devices"): Action("device.import"),
    ("POST", "/v1/imports/org-nodes"): Action("org_node.import"),
    ("POST", "/v1/imports/duty-units"): Action("duty_unit.import"),
    ("POST", "/v1/quarantine/{row_id}/replay"): Action("quarantine.replay", "row_id"),
    ("POST", "/v1/sinks/{sink}/rebuild"): Action("rebuild", "sink"),
    ("POST", "/v1/webhooks"): Action("webhook.create"),
    ("PATCH", "/v1/webhooks/{webhook}"): Action("webhook.change", "webhook"),
    ("DELETE", "/v1/webhooks/{webhook}"): Action("webhook.drop", "webhook"),
    ("POST", "/v1/webhooks/{webhook}/test"): Action("webhook.test", "webhook"),
    ("POST", "/v1/webhooks/{webhook}/deliveries/{happening}/retry"): Action("webhook.retry", "webhook"),
    ("POST", "/v1/devices/{device}/claims"): Action("claim.create", "device"),
    ("POST", "/v1/imports/claims"): Action("claim.import"),
    ("DELETE", "/v1/claims/{claim}"): Action("claim.withdraw", "claim"),
    ("POST", "/v1/devices/{device}/revoke"): Action("device.revoke", "device", told=("reason",)),
    # hushed: a badge's number is short, and would be found by its hash
    ("POST", "/v1/devices/{device}/check-out"): Action("assignment.check_out", "device", hushed=True),
    ("POST", "/v1/devices/{device}/check-in"): Action("assignment.check_in", "device", hushed=True),
    ("POST", "/v1/devices/{device}/hand-over"): Action("assignment.hand_over", "device", hushed=True),
    ("POST", "/v1/assignments/{assignment}/correction"): Action("assignment.correct", "assignment", hushed=True),
    ("POST", "/v1/imports/assignments"): Action("assignment.import", hushed=True),
    ("POST", "/v1/commands"): Action(
        "command.send", "name", told=("devices", "node", "unit", "device_class", "where", "parameters")
    ),
    ("POST", "/v1/commands/{command}/cancel"): Action("command.cancel", "command"),
    ("POST", "/v1/commands/{command}/orders"): Action("command.sign", "command"),
    ("POST", "/v1/commands/{command}/approve"): Action("command.approve", "command"),
    ("POST", "/v1/tokens"): Action("token.create", "token", told=("grants", "days")),
    ("POST", "/v1/tokens/{token}/approve"): Action("token.approve", "token"),
    ("POST", "/v1/tokens/{token}/revoke"): Action("token.revoke", "token"),
    ("PUT", "/v1/people/{person}/grants"): Action("person.grant", "person"),
    ("POST", "/v1/people/{person}/approve"): Action("person.approve", "person"),
    ("POST", "/v1/people/{person}/disable"): Action("person.disable", "person"),
    ("POST", "/v1/people/{person}/enable"): Action("person.enable", "person"),
    ("POST", "/v1/sign-out"): Action("session.end"),
    ("POST", "/sign-out"): Action("session.end"),
    # what is asked for; what is done of it are the events of the piece, evidence.*, and of the item, item.*
    ("POST", "/v1/evidence/pieces/{piece}/classes"): Action("custody.classify", "piece"),
    ("POST", "/v1/evidence/pieces/{piece}/holds"): Action("custody.hold", "piece", hushed=True),
    ("POST", "/v1/evidence/pieces/{piece}/release"): Action("custody.release", "piece", hushed=True),
    ("POST", "/v1/evidence/pieces/{piece}/deletion"): Action("custody.ask_deletion", "piece", hushed=True),
    ("POST", "/v1/evidence/pieces/{piece}/erase-notes"): Action("custody.erase_notes", "piece"),
    ("POST", "/v1/evidence/deletions/{deletion}/approve"): Action("custody.approve_deletion", "deletion"),
    ("POST", "/v1/evidence/deletions/{deletion}/withdraw"): Action(
        "custody.withdraw_deletion", "deletion", hushed=True
    ),
    ("PUT", "/v1/evidence/retention/{evidence_class}"): Action(
        "custody.propose_retention", "evidence_class", told=("keep_days",), hushed=True
    ),
    ("POST", "/v1/evidence/retention/changes/{change}/approve"): Action("custody.approve_retention", "change"),
    ("POST", "/v1/evidence/retention/changes/{change}/withdraw"): Action("custody.withdraw_retention", "change"),
    ("POST", "/v1/evidence/scrubs"): Action("custody.scrub"),
    ("POST", "/v1/evidence/dispatches"): Action("dispatch.enter", hushed=True),
    ("POST", "/v1/imports/dispatches"): Action("dispatch.import", hushed=True),
    ("POST", "/v1/evidence/dispatches/{dispatch}/explanation"): Action(
        "custody.explain_dispatch", "dispatch", told=("why",), hushed=True
    ),
    ("POST", "/v1/evidence/dispatches/{dispatch}/erase-notes"): Action("custody.erase_dispatch_notes", "dispatch"),
    ("POST", "/v1/evidence/interviews/{device}/{begin_ms}/certificate"): Action("custody.certify", "device"),
    ("POST", "/v1/evidence/exports"): Action("custody.export", told=("recording", "device", "from", "to")),
    ("POST", "/v1/evidence/items"): Action("custody.take_in", "item", told=("item",), hushed=True),
    ("POST", "/v1/evidence/items/{item}/store"): Action("custody.store", "item", hushed=True),
    ("POST", "/v1/evidence/items/{item}/lend"): Action("custody.lend", "item", hushed=True),
    ("POST", "/v1/evidence/items/{item}/return"): Action("custody.return", "item", hushed=True),
    ("POST", "/v1/evidence/items/{item}/hand-over"): Action("custody.hand_over", "item", hushed=True),
    ("POST", "/v1/rollouts"): Action("rollout.create", told=("name", "layer", "patch", "where")),
    ("POST", "/v1/rollouts/{rollout}/approve"): Action("rollout.approve", "rollout"),
    ("POST", "/v1/rollouts/{rollout}/pause"): Action("rollout.pause", "rollout", told=("reason",)),
    ("POST", "/v1/rollouts/{rollout}/resume"): Action("rollout.resume", "rollout"),
    ("POST", "/v1/rollouts/{rollout}/cancel"): Action("rollout.cancel", "rollout", told=("reason",)),
    ("POST", "/v1/rollouts/{rollout}/roll-back"): Action("rollout.roll_back", "rollout", told=("reason",)),
    ("PATCH", "/v1/twins/{device}"): Action("twin.change", "device"),
    ("PUT", "/v1/config/layers/fleet"): Action("config.put", told=("settings",)),
    ("PUT", "/v1/config/layers/classes/{device_class}"): Action(
        "config.put_class", "device_class", told=("settings",)
    ),
    ("PUT", "/v1/config/layers/nodes/{node}"): Action("config.put_node", "node", told=("settings",)),
    ("PUT", "/v1/config/layers/groups/{group}"): Action("config.put_group", "group", told=("settings",)),
    ("PUT", "/v1/config/layers/devices/{device}"): Action("config.put_device", "device", told=("settings",)),
    ("PUT", "/v1/config/groups/{group}"): Action("group.put", "group", told=("priority",)),
    ("DELETE", "/v1/config/groups/{group}"): Action("group.drop", "group"),
}
READS: Final[Mapping[tuple[str, str], Action]] = {
    ("GET", "/v1/audit"): Action("audit.read"),
    ("GET", "/v1/audit/export"): Action("audit.export"),
    ("GET", "/v1/audit/logs/{log}/tile/entries/{place:path}"): Action("audit.export", "log"),
    # that somebody looked at what an officer had; whose it was is in no log that cannot be erased
    ("GET", "/v1/officers/{officer}/assignments"): Action("officer.read"),
    ("GET", "/v1/officers/{officer}/series/{stream}"): Action("officer.read"),
}
"""Of what is read, this is recorded too; checkpoints and proofs are mere hashes, and witnesses ask all the time."""

_PATTERNS: Final = [
    (method, compile_path(path)[0], action) for (method, path), action in {**CHANGES, **READS}.items()
]


class Found(NamedTuple):
    """What a request is recorded as."""

    name: str
    subject: str
    data: Mapping[str, str]
    hushed: bool = False


def found_in(method: str, path: str, body: bytes) -> Found | None:
    """What a request is recorded as; None: not at all."""
    for wanted, pattern, action in _PATTERNS:
        matched = pattern.match(path) if wanted == method else None
        if matched is not None:
            named = matched.groupdict().get(action.subject, "")
            fields = _fields(body) if action.told or (action.subject and not named) else {}
            subject = named or _text(fields.get(action.subject, ""))
            told = {name: _text(fields[name]) for name in action.told if name in fields}
            return Found(action.name, subject, told, action.hushed)
    return None if method in SAFE else Found(UNNAMED, f"{method} {path}", {})


def is_recorded(method: str, path: str) -> bool:
    """Whether it is at all."""
    return method not in SAFE or any(pattern.match(path) for wanted, pattern, _ in _PATTERNS if wanted == method)


def route_of(method: str, path: str) -> str:
    """Of a read that is recorded, the route as ``api.rules`` names it; the method and path of any other request."""
    for wanted, template in READS:
        if wanted == method and compile_path(template)[0].match(path):
            return f"{method} {template.replace(':path}', '}')}"
    return f"{method} {path}"


def _fields(body: bytes) -> Mapping[str, object]:
    """Of a body as it came, which may be anything."""
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value, order="sorted").decode()
