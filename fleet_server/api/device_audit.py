"""``/v1/audit/devices``: what is wrong with the identities of the fleet, or soon will be."""

from collections.abc import Callable

from pydantic import BaseModel, Field

from fleet_server.access import device_audit
from fleet_server.access.device_audit import Check
from fleet_server.api.routes import Routes


class Finding(BaseModel):
    """One thing that is wrong."""

    check: Check
    subject: str = Field(description="A device, a file, or an authority.", examples=["car-7"])
    detail: str = Field(examples=["its certificate expires in 5 days"])
    todo: str = Field(examples=["see why it does not renew: edge-agent renew"])


class Audit(BaseModel):
    """Every check was made; those without a finding found nothing."""

    checks: list[Check]
    findings: list[Finding]


def routes(audited: Callable[[], list[device_audit.Finding]]) -> Routes:
    """The route; it blocks on the store and on files, so the framework runs it in a thread."""
    router = Routes(tags=["enrolment"])

    @router.get("/v1/audit/devices", summary="What is wrong with the fleet's identities")
    def audit() -> Audit:
        """Looked at now: certificates, authorities, connections, and the broker's own files."""
        findings = [
            Finding(check=each.check, subject=each.subject, detail=each.detail, todo=each.todo) for each in audited()
        ]
        return Audit(checks=list(Check), findings=findings)

    return router
