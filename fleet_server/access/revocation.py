"""Puts a device out, and proves that it is: asks the store, the list, the broker and presence, one after the other.

Each step may be repeated, so that whoever is not sure does all of it again. The order is what makes it hold: the list
counts at the broker before the session is ended, so that the device cannot come back in between.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from cryptography.hazmat.primitives.serialization import Encoding

from broker_config.text import shown
from fleet_server.access import ca, enrolment
from fleet_server.access.ca import Issued, Keys, Revoked
from fleet_server.access.enrolment import BadRequestError, EnrolmentError
from fleet_server.access.enrolment_store import Enrolments
from fleet_server.access.states import Reason

STEP_S_MAX: Final = 5.0
"""For what is waited for; what is not so by then is told as not done."""
POLL_S: Final = 0.05
CANARY_LIFE: Final = timedelta(hours=1)


class NothingToRevokeError(EnrolmentError):
    """The device has no certificate of this server that is good."""


class BrokerError(Exception):
    """The broker cannot be told, or asked; says what to do."""


class RevocationList(Protocol):
    """The file where the broker reads whom to refuse. Calls are serialised by the caller."""

    def publish(self, revoked: list[Revoked], *, now: datetime) -> None:
        """Add to the list, and sign it anew; durable once it returns. What was revoked stays so.

        Raises:
            OSError, CaError: the list is what it was.
        """

    def until(self) -> datetime | None:
        """Until when every list is good that we can sign; None: one is not there."""

    def ends(self) -> Mapping[str, datetime]:
        """Until when each list is good, by the subject of who signed it. Raises CaError."""

    def has_all(self, revoked: list[Revoked]) -> bool:
        """Whether each of our lists is there with all of these in it, and none of an authority that was retired.
        Raises OSError, CaError.
        """


class BrokerDoor(Protocol):
    """The broker, as who guards it uses it. Any thread may call; each waits some seconds at most."""

    def reload(self) -> None:
        """Have it read the list again; it may do so a little later. Raises BrokerError."""

    def was_told(self) -> bool:
        """Whether the broker that runs has been told of the list as it is now; False: not, or nobody knows."""

    def lets_in(self, identity: Issued) -> bool:
        """Whether a device with this certificate gets a connection. Raises BrokerError: nobody answers."""

    def end(self, device: str) -> None:
        """End the device's session and forget what is retained of it. Raises BrokerError."""


@dataclass(frozen=True, slots=True)
class Step:
    """``detail``: what to do if it is not ``done``; ``at_s``: when it ended, from the beginning of all."""

    what: str
    done: bool
    at_s: float
    detail: str = ""


@dataclass(slots=True)
class Outcome:
    """``seconds``: from the order to the last proof."""

    device: str
    reason: Reason
    certificates: int
    steps: list[Step] = field(default_factory=list)

    @property
    def out(self) -> bool:
        """Whether every step was done: the device is proved to be out."""
        return all(step.done for step in self.steps)

    @property
    def seconds(self) -> float:
        """See the class."""
        return self.steps[-1].at_s if self.steps else 0.0


class Revoker:
    """See the module's docstring. Any thread may call; one revocation at a time."""

    def __init__(
        self,
        keys: Keys,
        store: Enrolments,
        crl: RevocationList,
        door: BrokerDoor,
        is_connected: Callable[[str], bool],
        *,
        now_ms: Callable[[], int],
        benches: Callable[[str], Sequence[str]] = lambda _device: (),
    ) -> None:
        """*benches*: certificates (PEM) that ``add-device`` made for a device. Raises OSError: cannot be read."""
        self._keys = keys
        self._store = store
        self._crl = crl
        self._door = door
        self._is_connected = is_connected
        self._now_ms = now_ms
        self._benches = benches
        self._one = threading.Lock()
        self._told = False  # nobody knows of the process before this one; its database may have come from a backup

    def revoke(self, device: str, reason: Reason, *, certificates: Sequence[str] = ()) -> Outcome:
        """Revoke all certificates of *device*, have the broker refuse them, end its session, and look.

        *certificates*: others of it (PEM) that this server did not issue, and nobody has told it of.

        Raises:
            NothingToRevokeError: it has none; nothing has changed.
            EnrolmentError: one of *certificates* is not of this device and this site's authority; none was revoked.
        """
        with self._one:
            begin_s = time.monotonic()
            self._adopt(device, certificates)
            unread = self._adopt_benches(device)
            revoked = self._store.revoke(device, reason, now_ms=self._now_ms())
            if not revoked:
                found = f"; {unread}" if unread else ""
                raise NothingToRevokeError(f"{device} has no certificate of this server that has not expired{found}")
            outcome = Outcome(device, reason, len(revoked))
            canaries = self._canaries()

            def step(what: str, do: Callable[[], str]) -> bool:
                try:
                    detail = do()
                except (BrokerError, OSError, ca.CaError) as error:
                    detail = str(error)
                outcome.steps.append(Step(what, not detail, time.monotonic() - begin_s, detail))
                return not detail

            if unread:
                step("what add-device made for it is known", lambda: unread)
            lost = [ca.common_name_of(each.certificate) for each in self._keys.former() if each.ca is None]
            if lost:
                # nobody knows under whom the device is, and under these it cannot be refused
                step("every authority can revoke", lambda: _without_key(lost))
            step("the broker lets a good certificate in", lambda: self._welcomes(canaries))
            step("the list of revoked devices is written", lambda: self._publish(canaries))
            step("the broker is told", self._tell)
            step(
                "the broker refuses a certificate of the same list",
                lambda: _until(lambda: self._refuses(canaries)),
            )
            step("the session is ended and its status cleared", lambda: self._ended(device))
            step("the device is not connected", lambda: _until(lambda: not self._is_connected(device)))
            return outcome

    def keep_fresh(self) -> bool:
        """Sign the list again long before it runs out, and have it read; whether it was due.

        The first time it also looks at what this process cannot know: whether the list has all that the store calls
        revoked, and whether the broker has read it. One that has is left alone (ARCHITECTURE.md, "What hurts").

        Raises:
            OSError, CaError, BrokerError: it is not done, and due still.
        """
        with self._one:
            if self._is_due():
                self._publish([])
            elif self._told or self._door.was_told():
                self._told = True
                return False
            self._tell()
            return True

    def _is_due(self) -> bool:
        until = self._crl.until()
        if until is None or until - self._now() <= timedelta(days=ca.CRL_DAYS) / 2:
            return True
        return not self._told and not self._crl.has_all(self._revoked())

    def _adopt(self, device: str, certificates: Sequence[str]) -> None:
        """Enter what was signed beside this server. Raises EnrolmentError: nothing is."""
        leaves = [enrolment.read_leaf(pem, ca.vouching(self._keys)) for pem in certificates]
        for leaf in leaves:
            if (name := enrolment.name_of(leaf)) != device:
                raise BadRequestError(f"certificate: expected one of {device}, got {shown(name)!r}")
        for leaf in leaves:
            if self._store.certificate(enrolment.serial_text(leaf.serial_number)) is None:
                self._store.adopt(enrolment.described(leaf, device, now_ms=self._now_ms()))

    def _adopt_benches(self, device: str) -> str:
        """Why not, if not: a file that is damaged must not keep the device's other certificates good."""
        above = {each.public_bytes(Encoding.PEM).decode("ascii") for each in ca.vouching(self._keys)}
        try:
            for pem in self._benches(device):
                if pem not in above:  # a device's own file has its authority behind it, and may have been copied
                    self._adopt(device, [pem])
        except (EnrolmentError, OSError) as error:
            return f"{shown(error)}; give the certificate itself"
        return ""

    def _publish(self, canaries: Sequence[Issued]) -> str:
        self._told = False
        own = [Revoked(ca.certificate_of(canary).serial_number, self._now()) for canary in canaries]
        self._crl.publish(self._revoked() + own, now=self._now())
        return ""

    def _revoked(self) -> list[Revoked]:
        return [
            Revoked(int(each.serial, 16), datetime.fromtimestamp((each.revoked_ms or 0) / 1000, UTC))
            for each in self._store.revoked(now_ms=self._now_ms())
        ]

    def _canaries(self) -> list[Issued]:
        """Certificates that nobody has, revoked with the device: as the broker does with them, it does with others.
        One of each authority, because each has a list of its own.
        """
        return [
            ca.with_issuer(ca.new_device(each, enrolment.CANARY, now=self._now(), life=CANARY_LIFE), each.certificate)
            for each in ca.authorities(self._keys)
        ]

    def _welcomes(self, canaries: Sequence[Issued]) -> str:
        welcome = all(map(self._door.lets_in, canaries))
        return "" if welcome else "it refuses everybody: is its list of revoked devices too old?"

    def _refuses(self, canaries: Sequence[Issued]) -> bool:
        return not any(map(self._door.lets_in, canaries))

    def _tell(self) -> str:
        self._door.reload()
        self._told = True
        return ""

    def _ended(self, device: str) -> str:
        self._door.end(device)
        return ""

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._now_ms() / 1000, UTC)


def _without_key(names: Sequence[str]) -> str:
    return f"the key of {', '.join(names)} is gone; to refuse all that it signed: fleet-server retire-ca"


def _until(done: Callable[[], bool]) -> str:
    deadline_s = time.monotonic() + STEP_S_MAX
    while not done():
        if time.monotonic() > deadline_s:
            return f"not within {STEP_S_MAX:g} s"
        time.sleep(POLL_S)
    return ""
