"""What each request that changes something is called in the audit log, and what of it is the subject.

Every unsafe operation of the API has a line here; a test walks the OpenAPI document and fails for one without. One
that is forgotten all the same is recorded, by its method and path.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from starlette.routing import compile_path

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
UNNAMED: Final = "request"


class Action(NamedTuple):
    """``subject``: the parameter of the path that names it, or the word itself if the path has none."""

    name: str
    subject: str = ""


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
    ("POST", "/v1/tokens"): Action("token.create"),
    ("POST", "/v1/tokens/{token}/approve"): Action("token.approve", "token"),
    ("POST", "/v1/tokens/{token}/revoke"): Action("token.revoke", "token"),
    ("PUT", "/v1/people/{person}/grants"): Action("person.grant", "person"),
    ("POST", "/v1/people/{person}/approve"): Action("person.approve", "person"),
    ("POST", "/v1/people/{person}/disable"): Action("person.disable", "person"),
    ("POST", "/v1/people/{person}/enable"): Action("person.enable", "person"),
    ("POST", "/v1/sign-out"): Action("session.end"),
}
READS: Final[Mapping[tuple[str, str], Action]] = {
    ("GET", "/v1/audit"): Action("audit.read"),
    ("GET", "/v1/audit/export"): Action("audit.export"),
}
"""Of what is read, this is recorded too; checkpoints and proofs are mere hashes, and witnesses ask all the time."""

_PATTERNS: Final = {
    (method, path): (compile_path(path)[0], action) for (method, path), action in {**CHANGES, **READS}.items()
}


def action_of(method: str, path: str) -> Action | None:
    """What a request is recorded as, with its subject filled in; None: not at all."""
    for (wanted, _), (pattern, action) in _PATTERNS.items():
        found = pattern.match(path) if wanted == method else None
        if found is not None:
            return Action(action.name, found.groupdict().get(action.subject, ""))
    return None if method in SAFE else Action(UNNAMED, f"{method} {path}")
