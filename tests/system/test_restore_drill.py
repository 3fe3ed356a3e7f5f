"""The drill of a restore: a site is lost, and what devices hold is there again; and a restore that is wrong."""

from pathlib import Path

import pytest

from tests.faults.restore import CONTROL, drill

pytestmark = pytest.mark.server("mosquitto")


def test_a_site_that_is_lost_comes_back_with_all_that_devices_hold_and_names_the_rest(tmp_path: Path) -> None:
    report = drill(tmp_path, devices=2)
    assert report.wrong == []
    assert report.held > 0
    assert report.back == report.held
    assert report.older > 0
    assert report.named == report.older
    assert (report.files, report.files_back) == (8, 8)


def test_the_drill_sees_files_that_are_not_offered_again_and_readings_that_a_device_lost(tmp_path: Path) -> None:
    report = drill(tmp_path, devices=2, control=CONTROL)
    assert report.passed
    assert any("the device held it, and it is not there" in each for each in report.wrong)
    assert any("files that devices hold are not there" in each for each in report.wrong)
