"""schemathesis over the whole API, with a token and without: no 5xx, every error is a problem document, and every
answer has a status, a type and a shape that the API's document names.
"""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from fleet_server.access.people import ROOT, NodeGrant
from fleet_server.access.persons import Identity
from fleet_server.access.roles import Role
from fleet_server.access.sign_in import Policy
from fleet_server.access.sign_ins import SignIns
from fleet_server.adapters.oidc import OidcProvider, OidcSettings
from fleet_server.api.app import OPENAPI_PATH, Ports, create_app
from fleet_server.api.assignments import Assigning
from fleet_server.api.commands import Commanding
from fleet_server.api.cookies import Cookies
from fleet_server.api.evidence import Evidence
from fleet_server.api.problems import MEDIA_TYPE
from fleet_server.api.rules import OPEN
from fleet_server.api.sign_in import SigningIn
from fleet_server.api.twins import Change
from tests.fleet_server.fleet import NOW, Fleet, told
from tests.oidc_provider import Provider, provider

ENDLESS: Final = "/v1/changes"
"""A stream of events does not end; it has claims of its own."""
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    ignored_auth,
    unsupported_method,
]
EXAMPLES: Final = 10
"""Of each operation, token and mode."""
QUICK: Final = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
BARE: Final = frozenset({"/v1/health", "/v1/sign-in", "/v1/sign-out"})
"""Open, and there is nothing in them that could be wrong."""
OPENED: Final = frozenset(operation.partition(" ")[2] for operation in OPEN)
NO_EVIDENCE: Final[Any] = Evidence(**{field.name: None for field in fields(Evidence)})  # type: ignore[arg-type]
NO_ASSIGNING: Final[Any] = Assigning(None, None)  # type: ignore[arg-type]
NO_CHANGE: Final[Any] = Change(None, None, None, None)  # type: ignore[arg-type]
NO_ROLLING: Final[Any] = object()
NO_PORTS: Final[Any] = replace(
    Ports(**{field.name: None for field in fields(Ports)}),  # type: ignore[arg-type]
    evidence=NO_EVIDENCE,
    assigning=NO_ASSIGNING,
    change=NO_CHANGE,
    rolling=NO_ROLLING,
    commanding=Commanding(None, lambda: None, lambda: None, None, lambda _selector, devices: devices),  # type: ignore[arg-type]
)
"""Enough to know which routes there are."""
OPERATIONS: Final = [
    (path, method, mode)
    for path, item in create_app(NO_PORTS).openapi()["paths"].items()
    for method in item
    for mode in GenerationMode
    if path != ENDLESS and not (path in BARE and mode is GenerationMode.NEGATIVE)
]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Of this module: much of it is changed."""
    return told(tmp_path_factory.mktemp("fleet") / "store.db")


@pytest.fixture(scope="module")
def token(fleet: Fleet) -> str:
    """Of who may do everything: administrators review no evidence."""
    grants = [NodeGrant(Role.ADMINISTRATOR, None), NodeGrant(Role.EVIDENCE_REVIEWER, None)]
    made = fleet.people.make_token("all", "all", grants, giver=ROOT, expires_ms=None, now_ms=NOW)
    assert not made.token.pending
    return made.secret


@pytest.fixture(scope="module")
def schema(fleet: Fleet) -> Iterator[BaseSchema]:
    identity = Identity("https://login.example", "1", "", "anna@police.example")
    fleet.persons.sign_in(identity, (), instead_of=None, now_ms=NOW)
    with provider() as idp:
        ports = replace(fleet.ports, signing_in=signing_in_at(idp, fleet))
        yield schemathesis.openapi.from_asgi(OPENAPI_PATH, create_app(ports, clock=lambda: NOW))


def signing_in_at(idp: Provider, fleet: Fleet) -> SigningIn:
    policy = Policy(issuer=idp.issuer, client_id="fieldfleet")
    settings = OidcSettings(policy, "https://fleet.example/v1/sign-in/callback", ("openid",), "", None)
    sign_ins = SignIns(OidcProvider(settings), policy, fleet.persons)
    return SigningIn(sign_ins, Cookies.of(settings.redirect_url), "/v1/me")


def is_a_problem(answer: Response) -> None:
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == [MEDIA_TYPE], answer.text
        assert answer.json()["status"] == answer.status_code


@pytest.mark.parametrize(("path", "method", "mode"), OPERATIONS)
def test_every_answer_is_as_the_document_says(
    schema: BaseSchema, token: str, path: str, method: str, mode: GenerationMode
) -> None:
    @QUICK
    @given(schema[path][method].as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        answer = case.call(headers={"Authorization": f"Bearer {token}"})
        is_a_problem(answer)
        case.validate_response(answer, checks=CHECKS)
        refused = case.call(headers={"Authorization": "Bearer nobody"})
        is_a_problem(refused)
        assert refused.status_code in {401, 404, 405, 413, 422} or path in OPENED

    ask()
