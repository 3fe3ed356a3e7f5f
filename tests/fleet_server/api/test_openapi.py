"""The OpenAPI document says all that the API does."""

from typing import Any

import httpx
import pytest

from fleet_server.api.rules import OPEN

OPENED = {
    "get /v1/health",
    "get /v1/sign-in",
    "get /v1/sign-in/callback",
    "get /v1/sign-out/callback",
    "post /v1/sign-out",
}


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    answer: dict[str, Any] = (await client.get("/v1/openapi.json")).json()
    return answer


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{m} {path}", each) for path, item in document["paths"].items() for m, each in item.items()]


def test_paths(document: dict[str, Any]) -> None:
    assert sorted(name for name, _ in operations(document)) == [
        "delete /v1/claims/{claim}",
        "delete /v1/config/groups/{group}",
        "delete /v1/devices/{device}/registration",
        "delete /v1/duty-units/{unit}",
        "delete /v1/org-nodes/{node}",
        "delete /v1/webhooks/{webhook}",
        "get /metrics",
        "get /v1/alerts",
        "get /v1/assignments",
        "get /v1/assignments/{assignment}",
        "get /v1/audit",
        "get /v1/audit/checkpoint",
        "get /v1/audit/consistency",
        "get /v1/audit/devices",
        "get /v1/audit/export",
        "get /v1/audit/logs/{log}/checkpoint",
        "get /v1/audit/logs/{log}/proofs/{index}",
        "get /v1/audit/logs/{log}/tile/entries/{place}",
        "get /v1/audit/logs/{log}/tile/{level}/{place}",
        "get /v1/audit/logs/{log}/timestamps",
        "get /v1/audit/proof",
        "get /v1/changes",
        "get /v1/claims",
        "get /v1/commands",
        "get /v1/commands/{command}",
        "get /v1/commands/{command}/targets",
        "get /v1/config/groups",
        "get /v1/config/groups/{group}",
        "get /v1/config/layers",
        "get /v1/config/layers/classes/{device_class}",
        "get /v1/config/layers/devices/{device}",
        "get /v1/config/layers/fleet",
        "get /v1/config/layers/groups/{group}",
        "get /v1/config/layers/nodes/{node}",
        "get /v1/device-classes/{device_class}/commands",
        "get /v1/devices",
        "get /v1/devices/{device}",
        "get /v1/devices/{device}/assignments",
        "get /v1/devices/{device}/certificates",
        "get /v1/devices/{device}/events",
        "get /v1/devices/{device}/latest",
        "get /v1/devices/{device}/readiness",
        "get /v1/devices/{device}/registration",
        "get /v1/devices/{device}/series/{stream}",
        "get /v1/duty-units",
        "get /v1/duty-units/{unit}",
        "get /v1/evidence/deletions",
        "get /v1/evidence/deletions/{deletion}",
        "get /v1/evidence/dispatch-rates",
        "get /v1/evidence/dispatches",
        "get /v1/evidence/dispatches/{dispatch}",
        "get /v1/evidence/exports/{export}",
        "get /v1/evidence/holds",
        "get /v1/evidence/interviews",
        "get /v1/evidence/items",
        "get /v1/evidence/items/{item}",
        "get /v1/evidence/items/{item}/events",
        "get /v1/evidence/ledger",
        "get /v1/evidence/ledger-days",
        "get /v1/evidence/pieces",
        "get /v1/evidence/pieces/{piece}",
        "get /v1/evidence/pieces/{piece}/events",
        "get /v1/evidence/pieces/{piece}/original",
        "get /v1/evidence/retention",
        "get /v1/evidence/scrubs",
        "get /v1/facts",
        "get /v1/fleet",
        "get /v1/gaps",
        "get /v1/happenings",
        "get /v1/health",
        "get /v1/latest",
        "get /v1/me",
        "get /v1/officers/{officer}/assignments",
        "get /v1/officers/{officer}/series/{stream}",
        "get /v1/org-nodes",
        "get /v1/org-nodes/{node}",
        "get /v1/people",
        "get /v1/people/{person}",
        "get /v1/quarantine",
        "get /v1/quarantine/{row_id}",
        "get /v1/rollouts",
        "get /v1/rollouts/{rollout}",
        "get /v1/rollouts/{rollout}/devices",
        "get /v1/sign-in",
        "get /v1/sign-in/callback",
        "get /v1/sign-out/callback",
        "get /v1/sinks",
        "get /v1/sinks/{sink}/refused",
        "get /v1/tokens",
        "get /v1/tokens/{token}",
        "get /v1/twins/{device}",
        "get /v1/twins/{device}/desired",
        "get /v1/twins/{device}/reported",
        "get /v1/webhooks",
        "get /v1/webhooks/{webhook}",
        "get /v1/webhooks/{webhook}/deliveries",
        "patch /v1/devices/{device}/registration",
        "patch /v1/duty-units/{unit}",
        "patch /v1/org-nodes/{node}",
        "patch /v1/twins/{device}",
        "patch /v1/webhooks/{webhook}",
        "post /v1/assignments/{assignment}/correction",
        "post /v1/commands",
        "post /v1/commands/{command}/approve",
        "post /v1/commands/{command}/cancel",
        "post /v1/commands/{command}/orders",
        "post /v1/devices/{device}/check-in",
        "post /v1/devices/{device}/check-out",
        "post /v1/devices/{device}/claims",
        "post /v1/devices/{device}/hand-over",
        "post /v1/devices/{device}/revoke",
        "post /v1/evidence/deletions/{deletion}/approve",
        "post /v1/evidence/deletions/{deletion}/withdraw",
        "post /v1/evidence/dispatches",
        "post /v1/evidence/dispatches/{dispatch}/erase-notes",
        "post /v1/evidence/dispatches/{dispatch}/explanation",
        "post /v1/evidence/exports",
        "post /v1/evidence/interviews/{device}/{begin_ms}/certificate",
        "post /v1/evidence/items",
        "post /v1/evidence/items/{item}/hand-over",
        "post /v1/evidence/items/{item}/lend",
        "post /v1/evidence/items/{item}/return",
        "post /v1/evidence/items/{item}/store",
        "post /v1/evidence/pieces/{piece}/classes",
        "post /v1/evidence/pieces/{piece}/deletion",
        "post /v1/evidence/pieces/{piece}/erase-notes",
        "post /v1/evidence/pieces/{piece}/holds",
        "post /v1/evidence/pieces/{piece}/release",
        "post /v1/evidence/retention/changes/{change}/approve",
        "post /v1/evidence/retention/changes/{change}/withdraw",
        "post /v1/evidence/scrubs",
        "post /v1/imports/assignments",
        "post /v1/imports/claims",
        "post /v1/imports/devices",
        "post /v1/imports/dispatches",
        "post /v1/imports/duty-units",
        "post /v1/imports/org-nodes",
        "post /v1/people/{person}/approve",
        "post /v1/people/{person}/disable",
        "post /v1/people/{person}/enable",
        "post /v1/quarantine/{row_id}/replay",
        "post /v1/rollouts",
        "post /v1/rollouts/{rollout}/approve",
        "post /v1/rollouts/{rollout}/cancel",
        "post /v1/rollouts/{rollout}/pause",
        "post /v1/rollouts/{rollout}/resume",
        "post /v1/rollouts/{rollout}/roll-back",
        "post /v1/sign-out",
        "post /v1/sinks/{sink}/rebuild",
        "post /v1/tokens",
        "post /v1/tokens/{token}/approve",
        "post /v1/tokens/{token}/revoke",
        "post /v1/webhooks",
        "post /v1/webhooks/{webhook}/deliveries/{happening}/retry",
        "post /v1/webhooks/{webhook}/test",
        "put /v1/config/groups/{group}",
        "put /v1/config/layers/classes/{device_class}",
        "put /v1/config/layers/devices/{device}",
        "put /v1/config/layers/fleet",
        "put /v1/config/layers/groups/{group}",
        "put /v1/config/layers/nodes/{node}",
        "put /v1/devices/{device}/registration",
        "put /v1/duty-units/{unit}",
        "put /v1/evidence/retention/{evidence_class}",
        "put /v1/org-nodes/{node}",
        "put /v1/people/{person}/grants",
    ]


def test_every_error_is_described_as_a_problem(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert {"422", "503"} <= errors.keys(), name
        assert {"401", "403"} <= errors.keys() or name in OPENED, name
        for answer in errors.values():
            schema = answer["content"]["application/problem+json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Problem"}, name
    assert "HTTPValidationError" not in str(document)


def test_every_operation_and_model_is_described(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"], name
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("description"), name


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            here = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return here + [each for child in node.values() for each in references(child)]
        return [each for child in node for each in references(child)] if isinstance(node, list) else []

    missing = {ref for ref in references(document) if ref.removeprefix("#/components/schemas/") not in schemas}
    assert missing == set()


def test_what_is_open_is_health_and_the_way_in_and_out(document: dict[str, Any]) -> None:
    assert {name for name, each in operations(document) if not each.get("security")} == OPENED
    assert {each.lower() for each in OPEN} == OPENED


def test_a_token_or_a_session_is_enough(document: dict[str, Any]) -> None:
    for name, each in operations(document):
        assert name in OPENED or each["security"] == [{"HTTPBearer": []}, {"APIKeyCookie": []}], name
