"""Claims and the certificates that were issued. This is the port.

Any thread may call. Each change is one transaction, durable once it returns; after an error nothing has changed.
Trusted: whoever can write here can be any device; who can read here learns no code and no key.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from fleet_server.access.enrolment import Certificate, Claim
from fleet_server.access.states import Reason


class Enrolments(Protocol):
    """See the module's docstring."""

    def add_claims(self, claims: Sequence[tuple[Claim, bytes]]) -> None:
        """Enter claims with the digests of their codes, all or none; earlier open ones of a device are withdrawn.

        Raises:
            TooManyClaimsError: see there.
        """

    def claims(self, *, device: str | None, after: str, rows_max: int) -> Sequence[Claim]:
        """Those of a device, or all, by id, behind *after*."""

    def withdraw(self, claim: str, *, now_ms: int) -> Claim:
        """It is good for nothing from now on; one that was used stays used. Raises ClaimError: there is none."""

    def redeem(self, digest: bytes, issue: Callable[[str], Certificate], *, now_ms: int) -> Certificate:
        """Use a claim up, for a certificate that *issue* makes for its device; of many at once one does.

        The device's other certificates are superseded.

        Raises:
            ClaimError: none, used, withdrawn, expired.
            SharedKeyError: the key has a certificate.
            EnrolmentError: what *issue* raises.
        """

    def certificate(self, serial: str) -> Certificate | None:
        """One that was issued."""

    def renew(
        self, serial: str, check: Callable[[Certificate], None], issue: Callable[[str], Certificate], *, now_ms: int
    ) -> Certificate:
        """Issue another for the device of *serial*, which stays as good as it is: the new one was not used yet. All
        others of the device are superseded.

        Raises:
            RenewalError: what *check* raises of what is kept at this moment.
            SharedKeyError: the key has a certificate.
        """

    def adopt(self, certificate: Certificate) -> None:
        """Enter one that was issued before the store was what it is. Raises SharedKeyError: the key has another."""

    def certificates(self, device: str) -> Sequence[Certificate]:
        """All that a device ever had, the newest first."""

    def revoke(self, device: str, reason: Reason, *, now_ms: int) -> Sequence[Certificate]:
        """Revoke all of a device that have not expired, withdraw its claims; return what is revoked of it now."""

    def counting(self, *, now_ms: int) -> Sequence[Certificate]:
        """All that still say something: active, even if expired, or revoked and not expired."""

    def revoked(self, *, now_ms: int) -> Sequence[Certificate]:
        """All that a broker must refuse: revoked, and not expired."""
