"""A server's API on a real port, over a fleet without a broker, and the site that leads to it."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from fleet_server.api.app import create_app
from tests.fleet_server.fleet import TOKEN, Fleet, told
from tests.servers import HOST, accepts, free_port, wait_until


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, Path]]:
    """The fleet, and the directory of its site."""
    fleet = told(tmp_path_factory.mktemp("fleet") / "store.db")
    site, port = tmp_path_factory.mktemp("site"), free_port()
    (site / "server").mkdir()
    (site / "server" / "api-token").write_text(f"{TOKEN}\n")
    (site / "site.toml").write_text(f"api_port = {port}\n")
    server = uvicorn.Server(uvicorn.Config(create_app(fleet.ports), host=HOST, port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: accepts(port), "the API accepts")
    yield fleet, site
    fleet.bell.close()
    server.should_exit = True
    thread.join()
    fleet.store.close()
