"""What each route asks for: one table, deny by default. A route that is not in it is nobody's."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from fleet_server.access.roles import Permission

P = Permission


class Rule(NamedTuple):
    """``permission``: None is whoever is known. ``everywhere``: only who has it at no node alone, because what the
    route tells or does is of the whole server. ``own_device``: the path's device must be one that they see, because
    what the route stands on is not scoped itself.
    """

    permission: Permission | None
    everywhere: bool = False
    own_device: bool = False


_LOOK: Final = Rule(P.FLEET_READ)
_SAY: Final = Rule(P.REGISTRY_CHANGE)
_SAY_ALL: Final = Rule(P.REGISTRY_CHANGE, everywhere=True)
_SERVER: Final = Rule(P.SERVER_READ, everywhere=True)
_HOOKS: Final = Rule(P.WEBHOOKS_READ, everywhere=True)
_HOOK: Final = Rule(P.WEBHOOKS_CHANGE, everywhere=True)
_AUDIT: Final = Rule(P.AUDIT_READ, everywhere=True)
_EVIDENCE: Final = Rule(P.EVIDENCE_LIST)
_KEEP: Final = Rule(P.EVIDENCE_CHANGE)
_DELETE: Final = Rule(P.EVIDENCE_DELETE)
_RETENTION: Final = Rule(P.EVIDENCE_RETENTION, everywhere=True)
_WHO: Final = Rule(P.ASSIGNMENTS_READ)
_ASSIGN: Final = Rule(P.ASSIGNMENTS_CHANGE, own_device=True)
_ITEM: Final = Rule(P.ITEMS_CHANGE)
_SET: Final = Rule(P.CONFIG_CHANGE)
_SET_ALL: Final = Rule(P.CONFIG_CHANGE, everywhere=True)
_DISPATCHES: Final = Rule(P.DISPATCHES_CHANGE, everywhere=True)
# hashes and no entries: a witness in other hands needs no right to read
_WITNESS: Final = Rule(None)

RULES: Final[Mapping[str, Rule]] = {
    "GET /v1/me": Rule(None),
    "GET /v1/devices": _LOOK,
    "GET /v1/devices/{device}": _LOOK,
    "GET /v1/devices/{device}/latest": _LOOK,
    "GET /v1/devices/{device}/series/{stream}": _LOOK,
    "GET /v1/devices/{device}/events": _LOOK,
    "GET /v1/devices/{device}/registration": _LOOK,
    "PUT /v1/devices/{device}/registration": _SAY,
    "PATCH /v1/devices/{device}/registration": _SAY,
    "DELETE /v1/devices/{device}/registration": _SAY,
    "GET /v1/devices/{device}/readiness": Rule(P.FLEET_READ, own_device=True),
    "GET /v1/devices/{device}/assignments": Rule(P.ASSIGNMENTS_READ, own_device=True),
    "POST /v1/devices/{device}/check-out": _ASSIGN,
    "POST /v1/devices/{device}/check-in": _ASSIGN,
    "POST /v1/devices/{device}/hand-over": _ASSIGN,
    "GET /v1/assignments": _WHO,
    "GET /v1/assignments/{assignment}": _WHO,
    "POST /v1/assignments/{assignment}/correction": Rule(P.ASSIGNMENTS_CHANGE),
    "POST /v1/imports/assignments": Rule(P.ASSIGNMENTS_CHANGE, everywhere=True),
    "GET /v1/officers/{officer}/assignments": _WHO,
    "GET /v1/officers/{officer}/series/{stream}": _WHO,
    "GET /v1/org-nodes": _LOOK,
    "GET /v1/org-nodes/{node}": _LOOK,
    "PUT /v1/org-nodes/{node}": _SAY,
    "PATCH /v1/org-nodes/{node}": _SAY,
    "DELETE /v1/org-nodes/{node}": _SAY,
    "GET /v1/duty-units": _LOOK,
    "GET /v1/duty-units/{unit}": _LOOK,
    "PUT /v1/duty-units/{unit}": _SAY,
    "PATCH /v1/duty-units/{unit}": _SAY,
    "DELETE /v1/duty-units/{unit}": _SAY,
    "POST /v1/imports/devices": _SAY_ALL,
    "POST /v1/imports/org-nodes": _SAY_ALL,
    "POST /v1/imports/duty-units": _SAY_ALL,
    "GET /v1/device-classes/{device_class}/commands": _LOOK,
    "GET /v1/commands": _LOOK,
    "POST /v1/commands": Rule(P.COMMANDS_SEND),
    "GET /v1/commands/{command}": _LOOK,
    "GET /v1/commands/{command}/targets": _LOOK,
    "POST /v1/commands/{command}/cancel": Rule(P.COMMANDS_SEND),
    "POST /v1/commands/{command}/orders": Rule(P.COMMANDS_APPROVE),
    "POST /v1/commands/{command}/approve": Rule(P.COMMANDS_APPROVE),
    "GET /v1/fleet": _LOOK,
    "GET /v1/latest": _LOOK,
    "GET /v1/gaps": _LOOK,
    "GET /v1/happenings": _LOOK,
    "GET /v1/alerts": _LOOK,
    "GET /v1/changes": _LOOK,
    "GET /v1/quarantine": Rule(P.QUARANTINE_READ),
    "GET /v1/quarantine/{row_id}": Rule(P.QUARANTINE_READ),
    "POST /v1/quarantine/{row_id}/replay": Rule(P.QUARANTINE_REPLAY),
    "GET /v1/facts": _SERVER,
    "GET /metrics": _SERVER,
    "GET /v1/sinks": _SERVER,
    "GET /v1/sinks/{sink}/refused": _SERVER,
    "POST /v1/sinks/{sink}/rebuild": Rule(P.SERIES_REBUILD, everywhere=True),
    "GET /v1/webhooks": _HOOKS,
    "POST /v1/webhooks": _HOOK,
    "GET /v1/webhooks/{webhook}": _HOOKS,
    "PATCH /v1/webhooks/{webhook}": _HOOK,
    "DELETE /v1/webhooks/{webhook}": _HOOK,
    "POST /v1/webhooks/{webhook}/test": _HOOK,
    "GET /v1/webhooks/{webhook}/deliveries": _HOOKS,
    "POST /v1/webhooks/{webhook}/deliveries/{happening}/retry": _HOOK,
    "GET /v1/audit": _AUDIT,
    "GET /v1/audit/export": _AUDIT,
    "GET /v1/audit/checkpoint": _WITNESS,
    "GET /v1/audit/consistency": _WITNESS,
    "GET /v1/audit/proof": _WITNESS,
    "GET /v1/audit/logs/{log}/checkpoint": _WITNESS,
    "GET /v1/audit/logs/{log}/tile/entries/{place}": _AUDIT,
    "GET /v1/audit/logs/{log}/tile/{level}/{place}": _WITNESS,
    "GET /v1/audit/logs/{log}/proofs/{index}": _WITNESS,
    "GET /v1/audit/logs/{log}/timestamps": _WITNESS,
    "POST /v1/devices/{device}/claims": Rule(P.DEVICES_ENROL, own_device=True),
    "GET /v1/devices/{device}/certificates": Rule(P.DEVICES_ENROL, own_device=True),
    "POST /v1/devices/{device}/revoke": Rule(P.DEVICES_REVOKE, own_device=True),
    "POST /v1/imports/claims": Rule(P.DEVICES_ENROL, everywhere=True),
    "GET /v1/claims": Rule(P.DEVICES_ENROL, everywhere=True),
    "DELETE /v1/claims/{claim}": Rule(P.DEVICES_ENROL, everywhere=True),
    "GET /v1/audit/devices": Rule(P.AUDIT_READ, everywhere=True),
    "GET /v1/tokens": Rule(P.PEOPLE_READ, everywhere=True),
    "GET /v1/tokens/{token}": Rule(P.PEOPLE_READ, everywhere=True),
    "POST /v1/tokens": Rule(P.PEOPLE_CHANGE),
    "POST /v1/tokens/{token}/approve": Rule(P.PEOPLE_CHANGE),
    "POST /v1/tokens/{token}/revoke": Rule(P.PEOPLE_CHANGE),
    "GET /v1/people": Rule(P.PEOPLE_READ, everywhere=True),
    "GET /v1/people/{person}": Rule(P.PEOPLE_READ, everywhere=True),
    "PUT /v1/people/{person}/grants": Rule(P.PEOPLE_CHANGE),
    "POST /v1/people/{person}/approve": Rule(P.PEOPLE_CHANGE),
    # who was granted nothing belongs to no node
    "POST /v1/people/{person}/disable": Rule(P.PEOPLE_CHANGE, everywhere=True),
    "POST /v1/people/{person}/enable": Rule(P.PEOPLE_CHANGE, everywhere=True),
    "GET /v1/evidence/pieces": _EVIDENCE,
    "GET /v1/evidence/pieces/{piece}": _EVIDENCE,
    "GET /v1/evidence/pieces/{piece}/events": _EVIDENCE,
    "GET /v1/evidence/pieces/{piece}/original": Rule(P.EVIDENCE_READ),
    "POST /v1/evidence/pieces/{piece}/classes": _KEEP,
    "POST /v1/evidence/pieces/{piece}/holds": _KEEP,
    "POST /v1/evidence/pieces/{piece}/release": _KEEP,
    "POST /v1/evidence/pieces/{piece}/deletion": _DELETE,
    "POST /v1/evidence/pieces/{piece}/erase-notes": _DELETE,
    "GET /v1/evidence/holds": _EVIDENCE,
    "GET /v1/evidence/deletions": _EVIDENCE,
    "GET /v1/evidence/deletions/{deletion}": _EVIDENCE,
    "POST /v1/evidence/deletions/{deletion}/approve": _DELETE,
    "POST /v1/evidence/deletions/{deletion}/withdraw": _DELETE,
    "GET /v1/evidence/retention": _EVIDENCE,
    "PUT /v1/evidence/retention/{evidence_class}": _RETENTION,
    "POST /v1/evidence/retention/changes/{change}/approve": _RETENTION,
    "POST /v1/evidence/retention/changes/{change}/withdraw": _RETENTION,
    "GET /v1/evidence/scrubs": Rule(P.EVIDENCE_SCRUB, everywhere=True),
    "POST /v1/evidence/scrubs": Rule(P.EVIDENCE_SCRUB, everywhere=True),
    "POST /v1/evidence/exports": Rule(P.EVIDENCE_READ),
    "GET /v1/evidence/exports/{export}": Rule(P.EVIDENCE_READ),
    "GET /v1/evidence/ledger": _EVIDENCE,
    "GET /v1/evidence/ledger-days": _EVIDENCE,
    "GET /v1/evidence/dispatches": _EVIDENCE,
    "GET /v1/evidence/dispatches/{dispatch}": _EVIDENCE,
    "GET /v1/evidence/dispatch-rates": _EVIDENCE,
    "POST /v1/evidence/dispatches": _DISPATCHES,
    "POST /v1/imports/dispatches": _DISPATCHES,
    "POST /v1/evidence/dispatches/{dispatch}/explanation": Rule(P.DISPATCHES_EXPLAIN),
    "POST /v1/evidence/dispatches/{dispatch}/erase-notes": _DELETE,
    "GET /v1/evidence/interviews": _EVIDENCE,
    "POST /v1/evidence/interviews/{device}/{begin_ms}/certificate": Rule(P.EVIDENCE_READ),
    "GET /v1/evidence/items": _EVIDENCE,
    "POST /v1/evidence/items": _ITEM,
    "GET /v1/evidence/items/{item}": _EVIDENCE,
    "GET /v1/evidence/items/{item}/events": _EVIDENCE,
    "POST /v1/evidence/items/{item}/store": _ITEM,
    "POST /v1/evidence/items/{item}/lend": _ITEM,
    "POST /v1/evidence/items/{item}/return": _ITEM,
    "POST /v1/evidence/items/{item}/hand-over": _ITEM,
    "GET /v1/twins/{device}": _LOOK,
    "PATCH /v1/twins/{device}": _SET,
    "GET /v1/twins/{device}/desired": _LOOK,
    "GET /v1/twins/{device}/reported": _LOOK,
    # whom a rollout means may be anywhere
    "GET /v1/rollouts": Rule(P.FLEET_READ, everywhere=True),
    "POST /v1/rollouts": _SET_ALL,
    "GET /v1/rollouts/{rollout}": Rule(P.FLEET_READ, everywhere=True),
    "GET /v1/rollouts/{rollout}/devices": Rule(P.FLEET_READ, everywhere=True),
    "POST /v1/rollouts/{rollout}/approve": _SET_ALL,
    "POST /v1/rollouts/{rollout}/pause": _SET_ALL,
    "POST /v1/rollouts/{rollout}/resume": _SET_ALL,
    "POST /v1/rollouts/{rollout}/cancel": _SET_ALL,
    "POST /v1/rollouts/{rollout}/roll-back": _SET_ALL,
    "GET /v1/config/layers": _LOOK,
    "GET /v1/config/layers/fleet": _LOOK,
    "PUT /v1/config/layers/fleet": _SET_ALL,
    "GET /v1/config/layers/classes/{device_class}": _LOOK,
    "PUT /v1/config/layers/classes/{device_class}": _SET_ALL,
    "GET /v1/config/layers/nodes/{node}": _LOOK,
    "PUT /v1/config/layers/nodes/{node}": _SET,
    "GET /v1/config/layers/groups/{group}": Rule(P.FLEET_READ, everywhere=True),
    "PUT /v1/config/layers/groups/{group}": _SET_ALL,
    "GET /v1/config/layers/devices/{device}": _LOOK,
    "PUT /v1/config/layers/devices/{device}": _SET,
    # who is in a group may be anywhere
    "GET /v1/config/groups": Rule(P.FLEET_READ, everywhere=True),
    "GET /v1/config/groups/{group}": Rule(P.FLEET_READ, everywhere=True),
    "PUT /v1/config/groups/{group}": _SET_ALL,
    "DELETE /v1/config/groups/{group}": _SET_ALL,
}
PAGES: Final[Mapping[str, Rule]] = {
    "GET /": _LOOK,
    "GET /nodes/{node}": _LOOK,
    "GET /devices": _LOOK,
    "GET /devices/{device}": _LOOK,
    "GET /evidence": _EVIDENCE,
    "GET /evidence/pieces/{piece}": _EVIDENCE,
    "GET /rollouts": Rule(P.FLEET_READ, everywhere=True),
    "GET /rollouts/{rollout}": Rule(P.FLEET_READ, everywhere=True),
    "GET /alerts": _LOOK,
    "GET /coverage": _LOOK,
}
"""The server's own pages, which are not in the API's document."""
OPEN_PAGES: Final = frozenset(
    {"GET /sign-in", "POST /sign-in", "POST /sign-out", "GET /language/{language}", "GET /static/{name}"}
)
"""What a browser gets of them that nobody is signed in with."""
OPEN: Final = frozenset(
    {
        "GET /v1/health",
        "GET /v1/sign-in",
        "GET /v1/sign-in/callback",
        "POST /v1/sign-out",
        "GET /v1/sign-out/callback",
    },
)
"""What is done without a token, beside the API's document."""


def rule_of(route: str) -> Rule | None:
    """Of the API or of a page; None: nobody may."""
    return RULES.get(route) or PAGES.get(route)
