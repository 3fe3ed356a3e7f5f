"""A real Grafana that was given what is rendered has every dashboard, in the folder of its language.

``GRAFANA_URL`` names one that is provisioned with ``dashboards/grafana/``; ``GRAFANA_TOKEN`` is of a service account
that may read.
"""

import os
from http import HTTPStatus

import httpx
import pytest

from dashboards.panels import DATASOURCE_UID
from tests.dashboards.asked import dashboards

URL = os.environ.get("GRAFANA_URL", "")
pytestmark = pytest.mark.skipif(not URL, reason="GRAFANA_URL names no Grafana: there is none on this machine")


@pytest.fixture(scope="module")
def grafana() -> httpx.Client:
    token = os.environ.get("GRAFANA_TOKEN", "")
    return httpx.Client(base_url=URL, headers={"Authorization": f"Bearer {token}"} if token else {}, timeout=10)


@pytest.mark.parametrize("path", dashboards())
def test_a_dashboard_was_loaded_as_it_is(grafana: httpx.Client, path: str) -> None:
    board = dashboards()[path]
    answer = grafana.get(f"/api/dashboards/uid/{board['uid']}")
    assert answer.status_code == HTTPStatus.OK, answer.text
    told = answer.json()
    assert told["meta"]["provisioned"]
    assert told["meta"]["folderUid"] == f"fieldfleet-{path.split('/')[1].lower()}"
    assert [panel["title"] for panel in told["dashboard"]["panels"]] == [panel["title"] for panel in board["panels"]]


def test_the_data_source_is_the_one_that_dashboards_ask(grafana: httpx.Client) -> None:
    answer = grafana.get(f"/api/datasources/uid/{DATASOURCE_UID}")
    assert answer.status_code == HTTPStatus.OK, answer.text
    assert answer.json()["type"] == "influxdb"
