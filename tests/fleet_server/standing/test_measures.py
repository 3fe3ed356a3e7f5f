"""The table of measures is one that every server of time series takes."""

from broker_config import device_classes
from dashboards.units import grafana_unit
from fleet_server.standing.measures import BY_NAME, HAPPENING, MEASURES


def test_a_name_means_one_thing() -> None:
    streams = {stream for name in device_classes.names() for stream in device_classes.load(name).streams}
    assert len(BY_NAME) == len(MEASURES)
    assert not streams & {*BY_NAME, HAPPENING}
    for measure in MEASURES:
        assert len(set(measure.names)) == len(measure.names), measure.name


def test_every_unit_can_be_shown() -> None:
    for measure in MEASURES:
        for field in measure.fields:
            assert grafana_unit(field.unit)


def test_only_what_is_a_ratio_is_a_share() -> None:
    assert all(field.unit == "/" for measure in MEASURES for field in measure.fields if field.share)
