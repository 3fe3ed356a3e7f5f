"""A person signs in to ``fleet-server`` as it is started, and is still signed in when it was started again."""

from collections.abc import Iterator
from typing import Final

import httpx
import pytest

from fleet_server.config import load
from tests.commands import fieldfleet
from tests.faults.rig import Rig
from tests.oidc_provider import Provider, provider

pytestmark = [pytest.mark.server("mosquitto"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

SECRET: Final = "a secret of the provider's\n"


@pytest.fixture(scope="module")
def idp() -> Iterator[Provider]:
    with provider() as found:
        yield found


def url_of(rig: Rig) -> str:
    return load(rig.server_file).api.url


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, idp: Provider) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("rig")) as running:
        secret = running.server_file.with_name("oidc-secret")
        secret.write_text(SECRET, encoding="utf-8")
        secret.chmod(0o600)
        with running.server_file.open("a", encoding="utf-8") as file:
            file.write(
                f'\n[oidc]\nissuer = "{idp.issuer}"\nclient_id = "fieldfleet"\n'
                f'redirect_url = "{url_of(running)}/v1/sign-in/callback"\nclient_secret_file = "oidc-secret"\n'
                'require_amr = ["otp"]\n[[oidc.groups]]\ngroup = "watch"\nrole = "viewer"\n'
            )
        running.run()
        yield running


def test_a_person_signs_in_and_stays_signed_in(rig: Rig, idp: Provider) -> None:
    idp.put("anna", name="Anna", email="anna@police.example", amr=["pwd", "otp"], groups=["watch"])
    idp.put("eve", name="Eve", email="eve@police.example", amr=["pwd"], groups=["watch"])
    with httpx.Client(base_url=url_of(rig), follow_redirects=True) as browser:
        form = browser.get("/v1/sign-in")
        assert browser.post(form.url, data={"sub": "eve"}).status_code == 403
        form = browser.get("/v1/sign-in")
        landed = browser.post(form.url, data={"sub": "anna"})
        assert (landed.status_code, landed.url.path) == (200, "/")
        me = browser.get("/v1/me").json()
        assert (me["person"], me["permissions"]) == ("anna", {"fleet:read": [""]})
        assert rig.server.stop() == 0
        rig.start_server()
        assert browser.get("/v1/devices").status_code == 200
        fieldfleet(rig.site_directory, "people", "disable", "anna")
        assert browser.get("/v1/devices").status_code == 401
