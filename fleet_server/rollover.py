"""How a site's device authority is followed by another, and how a former one is retired: steps, each a file.

The site works after each step, whatever cuts the power, and all of them may be done again: the new pair lies whole
beside the old one until the old one is among the former ones and the broker's files know both. Only then is it copied
over the old one, first for the server, last in ``ca``, where it shows that a rollover has begun.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from fleet_server import site as plan
from fleet_server.access import ca
from fleet_server.config import FORMER_CAS_DIRECTORY
from fleet_server.site import File

CA: Final = "ca"
NAME: Final = "device-ca"
NEXT: Final = "device-ca.next"
BROKER_CA: Final = "broker/device-ca.crt"
BROKER_CRL: Final = f"{plan.BROKER_DIRECTORY}/{plan.CRL_FILE}"
FINGERPRINT_CHARS: Final = 16

Step: TypeAlias = tuple[str, File | None]
"""A path below the site's directory, and what is to be there; None: nothing."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a site has. ``places``: directory -> its pair; None: half of a pair, as a power cut leaves it.

    ``former``: certificates. ``lists``: those that the broker has; None: it is never told of revoked devices.
    """

    root: x509.Certificate
    places: Mapping[str, ca.Issued | None]
    former: Sequence[x509.Certificate]
    lists: Mapping[x509.Name, x509.CertificateRevocationList] | None


def common_name(randomness: str, now: datetime) -> str:
    """Of a new authority: another for each, because lists and chains are found by name."""
    return f"fieldfleet device CA {now:%Y-%m-%d} {randomness}"


def file_name(certificate: x509.Certificate) -> str:
    """Of a former authority's files, without what follows the dot."""
    return certificate.fingerprint(hashes.SHA256()).hex()[:FINGERPRINT_CHARS]


def roll(held: Held, new: ca.Issued, loaded: ca.Ca, *, now: datetime) -> Iterator[Step]:
    """Let *new*, which the root signed, sign devices from the server's next start. *loaded*: the same, with its key.

    Raises:
        CaError: before the first step: *new* is no authority of this root, or has a former one's key.
    """
    root = held.root
    if loaded.certificate.issuer != root.subject:
        raise ca.CaError("the new authority is not of this site's root")
    before = (*held.former, *(ca.certificate_of(each) for each in held.places.values() if each is not None))
    if any(each != loaded.certificate and each.public_key() == loaded.key.public_key() for each in before):
        raise ca.CaError("the new authority would have the key of one before it; name another key")
    yield from _put(CA, NEXT, new, new.certificate_pem)
    former = {file_name(each): each for each in held.former}
    for place, old in held.places.items():
        if old is None or old.certificate_pem == new.certificate_pem:
            continue  # it is among the former ones since the time before
        certificate = ca.certificate_of(old)
        former[file_name(certificate)] = certificate
        yield from _put(place, f"{FORMER_CAS_DIRECTORY}/{file_name(certificate)}", old, old.certificate_pem)
    yield BROKER_CA, File(trusted([loaded.certificate, *former.values()], root))
    if held.lists is not None:
        yield BROKER_CRL, File(_lists(held.lists, loaded, now))
    for place in sorted(held.places, reverse=True):  # the server's before that in ca/
        certificate_pem = new.certificate_pem + (b"" if place == CA else root.public_bytes(Encoding.PEM))
        yield from _put(place, NEXT, new, certificate_pem)
        yield from _put(place, NAME, new, certificate_pem)
        yield f"{place}/{NEXT}.crt", None
        yield f"{place}/{NEXT}.key", None


def retire(held: Held, former: x509.Certificate) -> Iterator[Step]:
    """Let *former* count no more: nobody signs its list again, and a broker without its list refuses its devices."""
    names = former.subject
    left = [each for each in held.former if each != former]
    current = [ca.certificate_of(each) for each in held.places.values() if each is not None]
    yield BROKER_CA, File(trusted([current[0], *left], held.root))
    if held.lists is not None:
        kept = [each.public_bytes(Encoding.PEM) for name, each in held.lists.items() if name != names]
        yield BROKER_CRL, File(b"".join(kept))
    for place in held.places:
        # the key first: without it nobody signs, and the certificate is what a repetition goes by
        yield f"{place}/{FORMER_CAS_DIRECTORY}/{file_name(former)}.key", None
        yield f"{place}/{FORMER_CAS_DIRECTORY}/{file_name(former)}.crt", None


def found(former: Sequence[x509.Certificate], name: str) -> x509.Certificate:
    """The former authority of a common name, or whose fingerprint begins so.

    Raises:
        CaError: none or several; says which there are.
    """
    those = [
        each for each in former if name and (ca.common_name_of(each) == name or file_name(each).startswith(name))
    ]
    if len(those) == 1:
        return those[0]
    there = ", ".join(f"{file_name(each)} ({ca.common_name_of(each)})" for each in former) or "none"
    raise ca.CaError(f"expected one of the former authorities: {there}; got {name!r}")


def trusted(authorities: Sequence[x509.Certificate], root: x509.Certificate) -> bytes:
    """The broker's file: the root is enough for who shows its authority; the others are for who does not."""
    return b"".join(each.public_bytes(Encoding.PEM) for each in (*authorities, root))


def _put(place: str, name: str, pair: ca.Issued, certificate_pem: bytes) -> Iterator[Step]:
    # the certificate last: it says that the pair is whole
    yield f"{place}/{name}.key", File(pair.key_pem, secret=True)
    yield f"{place}/{name}.crt", File(certificate_pem)


def _lists(old: Mapping[x509.Name, x509.CertificateRevocationList], new: ca.Ca, now: datetime) -> bytes:
    until = now + timedelta(days=ca.CRL_DAYS)
    own = ca.sign_revocations(new, [], updated=now - ca.BACKDATED, until=until)
    others = [each.public_bytes(Encoding.PEM) for name, each in old.items() if name != new.certificate.subject]
    return b"".join([own, *others])
