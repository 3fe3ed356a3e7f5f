"""Gives devices their certificates: asks the cores, signs, enters. Any thread may call."""

import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

from broker_config.enrolment import (
    CLAIM_BYTES,
    BrokerPlace,
    Enrolled,
    EnrollRequest,
    MacKeys,
    RenewRequest,
    SessionRequest,
    TrustAnswer,
    TrustRequest,
    claim_text,
    decode_signature,
    renewal_proof,
    session_proof,
    trust_proof,
)
from broker_config.ids import DeviceId, device_id
from fleet_server.access import ca, enrolment
from fleet_server.access.enrolment import Certificate, Claim, UnregisteredError
from fleet_server.access.enrolment_store import Enrolments
from fleet_server.access.keys import MasterKey, device_keys_json
from fleet_server.access.rates import Buckets, Rate

CLAIM_ID_BYTES: Final = 5
NONCE_BYTES: Final = 8
SECRET_BYTES: Final = 32
SOURCE_RATE: Final = Rate(burst=120, every_s=60)
"""One workstation may unpack a box of cameras; each device asks four times."""
CLAIM_RATE: Final = Rate(burst=10, every_s=60)
"""A code that many try is found out; whoever has it by right tries a few times."""


class TooOftenError(Exception):
    """Tried too often; ``wait_s``: when it may be tried again."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"tried too often; again in {wait_s:.0f} s")
        self.wait_s = wait_s


class DeviceClasses(Protocol):
    """What the registry knows of a device."""

    def __call__(self, device: str) -> str | None:
        """The class of a registered device; None if it is not registered."""


@dataclass(frozen=True, slots=True)
class EnrolmentSettings:
    """What devices are told, and how long what they get is good."""

    broker: BrokerPlace
    url: str
    server_ca_pem: str
    signers: Callable[[], str]
    leaf_life: timedelta = timedelta(days=ca.LEAF_DAYS)
    grace: timedelta = timedelta(days=60)
    steps: Callable[[int], tuple[str, ...]] = lambda _version: ()
    """The signed changes of the signers behind a version, as many as one answer holds. Raises OSError."""
    adopts: Callable[[int], bool] = lambda _serial: False
    """Whether a certificate of ours renews, by its serial, that the store has lost."""
    release_root: Callable[[], str] = lambda: ""
    """Whose signatures of releases count; empty: nobody's. Raises OSError."""


@dataclass(frozen=True, slots=True)
class NewClaim:
    """A claim and its code, which is told this once."""

    claim: Claim
    code: str = field(repr=False)


class Enroller:
    """See the module's docstring."""

    def __init__(
        self,
        settings: EnrolmentSettings,
        keys: ca.Keys,
        store: Enrolments,
        class_of: DeviceClasses,
        master: Callable[[], MasterKey],
        *,
        now_ms: Callable[[], int],
    ) -> None:
        self.settings = settings
        self._keys = keys
        self._store = store
        self._class_of = class_of
        self._master = master
        self._now_ms = now_ms
        self._nonce_secret = secrets.token_bytes(SECRET_BYTES)
        self._rates = threading.Lock()
        self._sources, self._claims = Buckets(SOURCE_RATE), Buckets(CLAIM_RATE)

    # for operators

    def make_claims(self, devices: Sequence[str], *, made_by: str, life_ms: int) -> list[NewClaim]:
        """A claim for each device, all or none; those that were open are withdrawn.

        Raises:
            UnregisteredError: names the first device that is not registered.
            TooManyClaimsError: see there.
        """
        now_ms = self._now_ms()
        made = []
        for device in devices:
            self._class(device)
            claim_id = secrets.token_hex(CLAIM_ID_BYTES)
            claim = Claim(claim_id, device, made_by, now_ms, now_ms + min(life_ms, enrolment.CLAIM_LIFE_MS_MAX))
            made.append(NewClaim(claim, claim_text(secrets.token_bytes(CLAIM_BYTES))))
        self._store.add_claims([(each.claim, enrolment.claim_digest(each.code)) for each in made])
        return made

    # for devices

    def enroll(self, request: EnrollRequest, *, source: str) -> Enrolled:
        """Redeem a claim.

        Raises:
            TooOftenError, EnrolmentError, CaError: no certificate; the claim is what it was.
        """
        digest = enrolment.claim_digest(request.claim)
        self._may_try(source, digest)
        key = enrolment.read_csr(request.csr)
        return self._issue(lambda issue: self._store.redeem(digest, issue, now_ms=self._now_ms()), key)

    def nonce(self, *, source: str) -> str:
        """For a renewal. Raises TooOftenError."""
        self._may_try(source, None)
        return enrolment.new_nonce(self._nonce_secret, secrets.token_bytes(NONCE_BYTES), now_ms=self._now_ms())

    def renew(self, request: RenewRequest, *, source: str) -> Enrolled:
        """Follow a certificate by another, also one that has expired within the grace; the old one stays good.

        Raises:
            TooOftenError, EnrolmentError, CaError: no certificate.
        """
        self._may_try(source, None)
        now_ms = self._now_ms()
        enrolment.check_nonce(self._nonce_secret, request.nonce, now_ms=now_ms)
        leaf = enrolment.read_leaf(request.certificate, ca.vouching(self._keys))
        signature = decode_signature(request.signature)
        enrolment.check_proof(leaf, renewal_proof(request.nonce, request.csr), signature)
        key = enrolment.read_csr(request.csr)
        serial = enrolment.serial_text(leaf.serial_number)
        grace_ms = int(self.settings.grace / timedelta(milliseconds=1))

        def check(kept: Certificate) -> None:
            enrolment.check_renewal(kept, leaf, now_ms=now_ms, grace_ms=grace_ms)

        if self._store.certificate(serial) is None and self.settings.adopts(leaf.serial_number):
            device = enrolment.name_of(leaf)
            self._class(device)
            self._store.adopt(enrolment.described(leaf, device, now_ms=now_ms))
        # asked before too, so that it is told what is wrong with what is not there
        enrolment.check_renewal(self._store.certificate(serial), leaf, now_ms=now_ms, grace_ms=grace_ms)
        return self._issue(lambda issue: self._store.renew(serial, check, issue, now_ms=now_ms), key)

    def trust(self, request: TrustRequest, *, source: str) -> tuple[str, TrustAnswer]:
        """The device, and what it lacks of signers and MAC keys; for whoever could renew now.

        Raises:
            TooOftenError, EnrolmentError: nothing for this one.
            OSError: the signers cannot be read.
        """
        device = self._proved(request, trust_proof(request.nonce, request.version, request.kid), source)
        mac = self._mac(device)
        return device, TrustAnswer(
            self.settings.steps(request.version) if request.version else (), None if mac.kid == request.kid else mac
        )

    def prove(self, request: SessionRequest, *, source: str) -> DeviceId:
        """Whose key it is; of whoever could renew now. Raises TooOftenError, EnrolmentError: nobody's that counts."""
        return DeviceId(self._proved(request, session_proof(request.nonce), source))

    def _proved(self, request: TrustRequest | SessionRequest, proof: bytes, source: str) -> str:
        self._may_try(source, None)
        now_ms = self._now_ms()
        enrolment.check_nonce(self._nonce_secret, request.nonce, now_ms=now_ms)
        leaf = enrolment.read_leaf(request.certificate, ca.vouching(self._keys))
        enrolment.check_proof(leaf, proof, decode_signature(request.signature))
        kept = self._store.certificate(enrolment.serial_text(leaf.serial_number))
        grace_ms = int(self.settings.grace / timedelta(milliseconds=1))
        device = enrolment.check_renewal(kept, leaf, now_ms=now_ms, grace_ms=grace_ms).device
        self._class(device)
        return device

    def _issue(self, enter: "Callable[[Callable[[str], Certificate]], Certificate]", key: ca.DeviceKey) -> Enrolled:
        made: list[tuple[str, str, str]] = []

        def issue(device: str) -> Certificate:
            now_ms = self._now_ms()
            device_class = self._class(device)
            now = datetime.fromtimestamp(now_ms / 1000, UTC)
            leaf = ca.sign_device(self._keys.authority(), device, key, now=now, life=self.settings.leaf_life)
            made.append((device, device_class, leaf.public_bytes(Encoding.PEM).decode("ascii")))
            return enrolment.described(leaf, device, now_ms=now_ms)

        enter(issue)
        return self._answer(*made[-1])

    def _answer(self, device: str, device_class: str, certificate_pem: str) -> Enrolled:
        chain = b"".join(above.public_bytes(Encoding.PEM) for above in self._keys.chain())
        mac = self._mac(device)
        return Enrolled(
            device=device,
            device_class=device_class,
            profile=device_class,
            certificate=certificate_pem,
            chain=chain.decode("ascii"),
            server_ca=self.settings.server_ca_pem,
            broker=self.settings.broker,
            mac=mac,
            signers=self.settings.signers(),
            release_root=self.settings.release_root(),
        )

    def _mac(self, device: str) -> MacKeys:
        return msgspec.json.decode(device_keys_json(self._master(), device_id(device)), type=MacKeys)

    def _class(self, device: str) -> str:
        found = self._class_of(device)
        if found is None:
            raise UnregisteredError(f"{device} is not registered")
        return found

    def _may_try(self, source: str, digest: bytes | None) -> None:
        now_s = self._now_ms() / 1000
        with self._rates:
            wait_s = self._sources.take(source.encode("utf-8", "replace"), now_s=now_s)
            if digest is not None:
                wait_s = max(wait_s, self._claims.take(digest, now_s=now_s))
        if wait_s:
            raise TooOftenError(wait_s)
