"""Carries out :mod:`fleet_server.rollover` on a site's directory."""

import secrets as randomness
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fleet_server import rollover
from fleet_server import site as plan
from fleet_server.access import ca
from fleet_server.access.key_uri import KeyUri
from fleet_server.adapters.authority import FORMER_CAS_MAX, loaded, read_former
from fleet_server.adapters.files import (
    PRIVATE_DIRECTORY,
    PRIVATE_FILE,
    remove_durably,
    write_durably,
)
from fleet_server.adapters.revocation_list import read_lists
from fleet_server.adapters.site_directory import PUBLIC_FILE, read_site
from fleet_server.adapters.token_key import make_ca_key
from fleet_server.config import FORMER_CAS_DIRECTORY
from fleet_server.rollover import Held, Step

NAME_BYTES: Final = 4


class Rolled(NamedTuple):
    """``resumed``: another run had begun it."""

    certificate: x509.Certificate
    resumed: bool


def roll(directory: Path, *, root_key: Path | None, days: int, now: datetime, key_uri: str | None = None) -> Rolled:
    """Make a new device authority and let it take the old one's place; or end what a power cut has stopped.

    *root_key*: None: where ``init`` has put it. *key_uri*: of the new one's key, which is made in that token if it is
    not there; None: in a file.

    Raises:
        ConfigError: *directory* is no site.
        SiteError: the root's key is not there or not the root's, or there are too many former authorities; what was
            there is there. Or the token cannot be used, or another key than *key_uri* was begun with.
        KeyUriError: *key_uri* is none.
    """
    read_site(directory)
    uri = None if key_uri is None else Reference(key_uri, KeyUri.parse(key_uri))
    try:
        begun = _pair(directory, rollover.CA, rollover.NEXT)
        held = _held(directory, begun=begun is not None)
        if begun is None:
            root = _root(directory, root_key or directory / f"{plan.DEVICE_ROOT}.key")
            name = rollover.common_name(randomness.token_hex(NAME_BYTES), now)
            new = _new(root, name, uri, days=days, now=now)
        else:
            new = _begun(begun, uri)
        _carry_out(directory, rollover.roll(held, new, loaded(new), now=now))
    except (OSError, ca.CaError) as error:
        raise plan.SiteError(f"{directory}: {error}") from error
    return Rolled(ca.certificate_of(new), begun is not None)


class Reference(NamedTuple):
    """A key in a token: what the site's file of it says, and that read."""

    text: str
    uri: KeyUri


def _new(root: ca.Issued, name: str, key: Reference | None, *, days: int, now: datetime) -> ca.Issued:
    if key is None:
        return ca.new_intermediate(root, name, now=now, days=days)
    public = make_ca_key(key.uri).public_key()
    certificate = ca.sign_intermediate(ca.Ca.load(root), name, public, now=now, days=days)
    return ca.Issued(certificate.public_bytes(Encoding.PEM), f"{key.text}\n".encode())


def _begun(new: ca.Issued, key: Reference | None) -> ca.Issued:
    if key is not None and new.key_pem.strip() != key.text.encode():
        raise ca.CaError("a rollover was begun with another key; end it first: fleet-server roll-ca")
    return new


def retire(directory: Path, name: str, *, now: datetime, sure: bool) -> x509.Certificate:
    """Let the former authority *name* count no more. *sure*: though it has not expired, and devices may be under it.

    Raises:
        ConfigError: *directory* is no site.
        SiteError: no such authority, or not *sure*; what was there is there.
    """
    read_site(directory)
    try:
        held = _held(directory, begun=False, more=0)
        former = rollover.found(held.former, name)
        begun = _pair(directory, rollover.CA, rollover.NEXT) is not None
        _may_retire(former, now=now, sure=sure, begun=begun)
        _carry_out(directory, rollover.retire(held, former))
    except (OSError, ca.CaError) as error:
        raise plan.SiteError(f"{directory}: {error}") from error
    return former


def _may_retire(former: x509.Certificate, *, now: datetime, sure: bool, begun: bool) -> None:
    """No database is at hand where authorities are kept: whoever has looked there says so."""
    if begun:
        raise ca.CaError("a rollover was begun and not ended; do that first: fleet-server roll-ca")
    if not sure and former.not_valid_after_utc > now:
        raise ca.CaError(
            f"{ca.common_name_of(former)} is good until {former.not_valid_after_utc:%Y-%m-%d}, and every device "
            "under it would be refused; see who is: fieldfleet audit devices; then: --yes"
        )


def _held(directory: Path, *, begun: bool, more: int = 1) -> Held:
    """*more*: former authorities that are to be added."""
    places = [rollover.CA]
    if (directory / f"{plan.SERVER_CONFIG_DIRECTORY}/{rollover.NAME}.crt").exists():
        places.append(plan.SERVER_CONFIG_DIRECTORY)
    pairs = {place: _pair(directory, place, rollover.NAME, signs=False) for place in places}
    torn = [place for place, pair in pairs.items() if pair is None]
    if torn and not begun:
        raise ca.CaError(
            f"{' and '.join(torn)}: {rollover.NAME}.crt and .key are no pair of an authority; where the "
            f"configuration has key_uri, write that into {rollover.NAME}.key and give key_file instead"
        )
    former = {
        rollover.file_name(each.certificate): each.certificate
        for place in places
        for each in read_former(directory / place / FORMER_CAS_DIRECTORY)
    }
    if not begun and len(former) + more > FORMER_CAS_MAX:
        raise ca.CaError(f"there are {len(former)} former authorities; retire one first: fleet-server retire-ca")
    crl = directory / rollover.BROKER_CRL
    try:
        lists = read_lists(crl.read_bytes()) if crl.exists() else None
    except ValueError as error:
        raise ca.CaError(f"{crl}: expected lists of revoked certificates as PEM: {error}") from error
    root = ca.certificate_of(ca.Issued((directory / f"{plan.DEVICE_ROOT}.crt").read_bytes(), b""))
    return Held(root, pairs, tuple(former.values()), lists)


def _pair(directory: Path, place: str, name: str, *, signs: bool = True) -> ca.Issued | None:
    """None: there is none, or it is not whole. *signs*: its key is needed, else a token may be gone.

    In ``server`` the root is behind the authority, and left out here.
    """
    cert_file = directory / place / f"{name}.crt"
    try:
        pem, key = cert_file.read_bytes(), cert_file.with_suffix(".key").read_bytes()
        pair = loaded(ca.Issued(pem, key))
    except ca.KeyUnreachableError:
        if signs:
            raise  # which says nothing about the pair
        # no half of a pair: the half that could be wrong is of the new one, whose key signs
        return ca.Issued(ca.certificate_of(ca.Issued(pem, key)).public_bytes(Encoding.PEM), key)
    except (FileNotFoundError, ca.CaError):
        return None
    return ca.Issued(pair.certificate_pem, key)


def _root(directory: Path, key_file: Path) -> ca.Issued:
    certificate_pem = (directory / f"{plan.DEVICE_ROOT}.crt").read_bytes()
    try:
        root = ca.Issued(certificate_pem, key_file.read_bytes())
    except FileNotFoundError as error:
        raise ca.CaError(f"{key_file} is not there; bring the root's key, and say where: --root-key FILE") from error
    try:
        ca.Ca.load(root)
    except ca.CaError as error:
        raise ca.CaError(f"{key_file}: expected the key of {plan.DEVICE_ROOT}.crt: {error}") from error
    return root


def _carry_out(directory: Path, steps: Iterable[Step]) -> None:
    for name, file in steps:
        path = directory / name
        if file is None:
            remove_durably(path)
            continue
        path.parent.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
        write_durably(path, file.content, mode=PRIVATE_FILE if file.secret else PUBLIC_FILE)
