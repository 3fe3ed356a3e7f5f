"""Samples as the server makes them, from names and values."""

from fleet_server.alerting.rules import Rule, stream_measure
from fleet_server.standing.measures import Measure, Of
from fleet_server.standing.sample import Sample

ORG = "hq/station-7"


def sample(
    measure: Measure, at_ms: int, *, device: str = "", device_class: str = "", org: str = ORG, **values: float | None
) -> Sample:
    """What is not in *values* is not known."""
    assert values.keys() <= set(measure.names), values
    of_device, of_site = measure.of is Of.DEVICE, measure.of is Of.SITE
    return Sample(
        measure,
        at_ms,
        tuple(values.get(name) for name in measure.names),
        device if of_device else "",
        device_class if of_device else "",
        "" if of_site else org,
    )


def of_rule(rule: Rule, value: float | None, at_ms: int, *, device: str = "a-1", applies: float = 1.0) -> Sample:
    """What *rule* looks at, so that it sees *value*."""
    device_class = rule.classes[0] if rule.classes else "body_camera"
    measure = stream_measure(device_class, rule.of) if isinstance(rule.of, str) else rule.of
    values: dict[str, float | None] = {rule.field: value}
    if rule.minus:
        values[rule.minus] = 0.0
    if rule.only:
        values[rule.only] = applies
    return sample(measure, at_ms, device=device, device_class=device_class, org=ORG, **values)
