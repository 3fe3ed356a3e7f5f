"""A dock: the listener where devices get their identities, with uploads of this process behind it, and one device."""

import base64
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from broker_config import transfer
from broker_config.enrolment import EnrollRequest, session_proof
from broker_config.ids import DeviceId
from fleet_server.access.enrolment import serial_text
from fleet_server.evidence.service import UploadService
from fleet_server.evidence.underway import Put, Said
from fleet_server.evidence.uploads import UploadError
from tests.enrolment import Office
from tests.fleet_server.evidence.served import Evidence
from tests.fleet_server.evidence.upload_rig import File, Identity, manifest_of
from tests.fleet_server.telemetry.service_rig import now_ms

CAR = DeviceId("car-7")
WAIT_S = 20.0


class Dock:
    """The port, over whatever service runs now."""

    service: UploadService | None = None

    def say(self, said: Said | Put) -> list[transfer.DownMessage]:
        if self.service is None:
            raise UploadError("the server is not ready")
        return self.service.say(said)

    def receipt(self, device: DeviceId, upload: str) -> bytes | None:
        return None if self.service is None else self.service.receipt(device, upload)


@dataclass
class Place:
    """The listener, the evidence's side, and one enrolled device."""

    office: Office
    evidence: Evidence
    dock: Dock
    identity: Identity

    def client(self) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.office.ca_file))
        return httpx.Client(base_url=self.office.url, verify=context, timeout=WAIT_S)

    def session(self, client: httpx.Client, *, key: ec.EllipticCurvePrivateKey | None = None) -> httpx.Response:
        nonce = client.get("/nonce").json()["nonce"]
        signature = (key or self.identity.key).sign(session_proof(nonce), ec.ECDSA(hashes.SHA256()))
        leaf = self.identity.chain_pem.split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"
        body = {"certificate": leaf, "nonce": nonce, "signature": base64.b64encode(signature).decode()}
        return client.post("/uploads/session", json=body)

    @contextmanager
    def docked(self) -> Iterator[httpx.Client]:
        with self.client() as client:
            answer = self.session(client)
            assert answer.status_code == 200, answer.text
            client.headers["Authorization"] = f"Bearer {answer.json()['session']}"
            yield client

    def file(self, size: int) -> File:
        data = bytes(n * 7 % 251 for n in range(size))
        return File(data, manifest_of(data, CAR, at_ms=now_ms()), self.identity)


def enrolled(place: Office) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    pem = csr.public_bytes(Encoding.PEM).decode()
    given = place.enroller.enroll(EnrollRequest(place.claim(), pem), source="here")
    leaf = x509.load_pem_x509_certificate(given.certificate.encode())
    return Identity(CAR, given.certificate + given.chain, key, serial_text(leaf.serial_number))
