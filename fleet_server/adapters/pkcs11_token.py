"""A private key in a token, by PKCS #11: it signs there, and is never here.

All calls of this process are under one lock, as the library is initialised without locks of its own. There is one
session with each token, because a login is the process's: the second to log out would log out the first.
"""

import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from secrets import token_bytes
from typing import Final, NamedTuple

import pkcs11
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass, PKCS11Error

from broker_config.text import shown
from fleet_server.access.key_uri import KeyUri, TokenError
from fleet_server.config import not_secret

PIN_BYTES_MAX: Final = 256
ID_BYTES: Final = 8
TRIAL: Final = b"fieldfleet: is the public key this one's?"
P256_PARAMETERS: Final = bytes.fromhex("06082a8648ce3d030107")
ED25519_PARAMETERS: Final = bytes.fromhex("06032b6570")
P256_POINT_BYTES: Final = 65
ED25519_POINT_BYTES: Final = 32
OCTET_STRING: Final = 4

PublicKey = ec.EllipticCurvePublicKey | Ed25519PublicKey

_LOCK: Final = threading.RLock()
_sessions: Final[dict[tuple[Path, str], pkcs11.Session]] = {}
_refused: Final[dict[tuple[Path, str], str]] = {}
"""A PIN that was wrong: it is not tried again, because a token locks itself after a few."""


class Sort(NamedTuple):
    """A sort of key: how it is made, how it signs, how long its point is."""

    name: str
    key_type: KeyType
    parameters: bytes
    make: Mechanism
    sign: Mechanism
    point_bytes: int


P256: Final = Sort("P-256", KeyType.EC, P256_PARAMETERS, Mechanism.EC_KEY_PAIR_GEN, Mechanism.ECDSA, P256_POINT_BYTES)
ED25519: Final = Sort(
    "Ed25519",
    KeyType.EC_EDWARDS,
    ED25519_PARAMETERS,
    Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
    Mechanism.EDDSA,
    ED25519_POINT_BYTES,
)


class TokenKey:
    """Any thread may call; one at a time is served."""

    def __init__(self, uri: KeyUri, sort: Sort) -> None:
        """Log in, find the one key, and see that it signs what its public key verifies.

        Raises:
            TokenError: module, token, PIN or key; nothing has changed.
        """
        self._uri = uri
        self._sort = sort
        with _LOCK:
            self._session, self._private, self.public = self._found()
            _verify(self.public, self.sign(TRIAL), str(uri))

    def sign(self, data: bytes) -> bytes:
        """ECDSA: r, then s, 32 bytes each, over the SHA-256 of *data*. Ed25519: 64 bytes.

        A session that died is opened again, once. Raises TokenError.
        """
        asked = data if self._sort is ED25519 else _sha256(data)
        with _LOCK:
            try:
                return self._signed(asked)
            except (PKCS11Error, TokenError):
                _forget(self._uri.module)
            try:
                return self._signed(asked)
            except PKCS11Error as error:
                raise _failed(self._uri, error) from error

    def _signed(self, data: bytes) -> bytes:
        # another key of that token may have opened the session again
        if _sessions.get(_place(self._uri)) is not self._session:
            session, private, public = self._found()
            if public != self.public:
                raise TokenError(f"{self._uri}: is another key than at the start; bring back the one that was there")
            self._session, self._private = session, private
        return self._private.sign(data, mechanism=self._sort.sign)

    def _found(self) -> tuple[pkcs11.Session, pkcs11.SignMixin, PublicKey]:
        session = _session(self._uri, writes=False)
        try:
            private = _one(session, self._uri, ObjectClass.PRIVATE_KEY, self._sort)
            if not isinstance(private, pkcs11.SignMixin):
                raise TokenError(f"{self._uri}: may not sign (CKA_SIGN)")
            point = _one(session, self._uri, ObjectClass.PUBLIC_KEY, self._sort)[Attribute.EC_POINT]
        except PKCS11Error as error:
            raise _failed(self._uri, error) from error
        return session, private, _public(point, self._sort, self._uri)


def make(uri: KeyUri, sort: Sort) -> bool:
    """Make the key in the token if there is none that *uri* could mean; whether it was made.

    Whether made or found, it is one that the token never gives away.

    Raises:
        TokenError: there are two, one of another sort, or one that can be taken out; or the token does not do it.
    """
    with _LOCK:
        try:
            session = _session(uri, writes=True)
            there = next(_those(session, uri, ObjectClass.PRIVATE_KEY), None) is not None
            if not there:
                _generate(session, uri, sort)
            private = _one(session, uri, ObjectClass.PRIVATE_KEY, sort)
            kept = private[Attribute.SENSITIVE] and not private[Attribute.EXTRACTABLE]
        except PKCS11Error as error:
            raise _failed(uri, error) from error
        finally:
            _forget(uri.module)  # it may write; who signs need not
    if not kept:
        raise TokenError(f"{uri}: can be taken out of the token (CKA_EXTRACTABLE, CKA_SENSITIVE); name a new one")
    return not there


def _generate(session: pkcs11.Session, uri: KeyUri, sort: Sort) -> None:
    parameters = session.create_domain_parameters(sort.key_type, {Attribute.EC_PARAMS: sort.parameters}, local=True)
    kept = {Attribute.EXTRACTABLE: False, Attribute.SENSITIVE: True, Attribute.PRIVATE: True}
    parameters.generate_keypair(
        mechanism=sort.make,
        id=uri.id or token_bytes(ID_BYTES),
        label=uri.label or None,
        store=True,
        capabilities=pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY,
        private_template=kept,
    )


def _place(uri: KeyUri) -> tuple[Path, str]:
    return uri.module, uri.token


def _session(uri: KeyUri, *, writes: bool) -> pkcs11.Session:
    """The process's, logged in. Raises TokenError."""
    place = _place(uri)
    if writes:
        _forget(uri.module)
    if place not in _sessions:
        _sessions[place] = _opened(uri, writes=writes)
    return _sessions[place]


def _opened(uri: KeyUri, *, writes: bool) -> pkcs11.Session:
    pin = _pin(uri)
    place = _place(uri)
    if _refused.get(place) == pin:
        raise TokenError(f"token {shown(uri.token)}: refused this PIN before; correct {uri.pin_file}")
    token = _token(uri)
    try:
        return token.open(rw=writes, user_pin=pin)
    except pkcs11.UserAlreadyLoggedIn:
        return token.open(rw=writes)  # of a session that died without its login
    except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange) as error:
        _refused[place] = pin
        raise TokenError(f"token {shown(uri.token)}: refused the PIN in {uri.pin_file}") from error
    except pkcs11.PinLocked as error:
        raise TokenError(
            f"token {shown(uri.token)}: is locked after wrong PINs; its security officer opens it"
        ) from error
    except PKCS11Error as error:
        raise _failed(uri, error) from error


def _token(uri: KeyUri) -> pkcs11.Token:
    if not uri.module.is_file():
        raise TokenError(f"module-path: expected the token's PKCS #11 library, got no file: {uri.module}")
    try:
        tokens = [slot.get_token() for slot in pkcs11.lib(str(uri.module)).get_slots(token_present=True)]
    except PKCS11Error as error:
        raise TokenError(f"{uri.module}: cannot be used as a PKCS #11 library: {_name(error)}") from error
    those = [token for token in tokens if token.label == uri.token]
    if len(those) != 1:
        there = ", ".join(shown(token.label) for token in tokens if token.label) or "none"
        raise TokenError(f"token: expected one of label {shown(uri.token)}, got {len(those)}; there are: {there}")
    return those[0]


def _forget(module: Path) -> None:
    """End every session with the module's tokens and begin with it anew, as one that was away demands."""
    for place in [place for place in _sessions if place[0] == module]:
        del _sessions[place]
    try:
        pkcs11.lib(str(module)).reinitialize()  # which ends sessions, and logins
    except PKCS11Error:
        return  # whoever opens the next session is told why


def _those(session: pkcs11.Session, uri: KeyUri, sort: ObjectClass) -> Iterator[pkcs11.Object]:
    asked: dict[Attribute, object] = {Attribute.CLASS: sort}
    if uri.label:
        asked[Attribute.LABEL] = uri.label
    if uri.id:
        asked[Attribute.ID] = uri.id
    return session.get_objects(asked)


def _one(session: pkcs11.Session, uri: KeyUri, kind: ObjectClass, sort: Sort) -> pkcs11.Object:
    found = list(islice(_those(session, uri, kind), 2))
    what = "private" if kind is ObjectClass.PRIVATE_KEY else "public"
    if not found:
        raise TokenError(f"{uri}: expected one {what} key, got none; see: pkcs11-tool --list-objects --login")
    if len(found) > 1:
        raise TokenError(f"{uri}: expected one {what} key, got several; say which with id=%XX")
    if found[0][Attribute.KEY_TYPE] != sort.key_type:
        raise TokenError(f"{uri}: expected a key of sort {sort.name}, got another")
    return found[0]


def _public(point: bytes, sort: Sort, uri: KeyUri) -> PublicKey:
    # an OCTET STRING by the standard, the bare point in some tokens
    if len(point) == sort.point_bytes + 2 and point[:2] == bytes([OCTET_STRING, sort.point_bytes]):
        point = point[2:]
    try:
        if sort is ED25519:
            return Ed25519PublicKey.from_public_bytes(point)
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError as error:
        raise TokenError(f"{uri}: expected a key of sort {sort.name}, got another") from error


def der(signature: bytes) -> bytes:
    """An ECDSA signature as certificates have it."""
    half = len(signature) // 2
    return utils.encode_dss_signature(
        int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
    )


def _verify(public: PublicKey, signature: bytes, name: str) -> None:
    try:
        if isinstance(public, Ed25519PublicKey):
            public.verify(signature, TRIAL)
        else:
            public.verify(der(signature), TRIAL, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise TokenError(
            f"{name}: the public key of that name is not the private key's; say which with id=%XX"
        ) from error


def _sha256(data: bytes) -> bytes:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize()


def _pin(uri: KeyUri) -> str:
    faults = not_secret("pin-source", uri.pin_file)
    if faults:
        raise TokenError(faults[0])
    try:
        with uri.pin_file.open("rb") as file:
            pin = file.read(PIN_BYTES_MAX + 1)
        text = pin.rstrip(b"\r\n").decode()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenError(f"pin-source: {uri.pin_file}: expected a PIN in UTF-8 in one line") from error
    if not text or len(pin) > PIN_BYTES_MAX:
        raise TokenError(f"pin-source: {uri.pin_file}: expected 1 to {PIN_BYTES_MAX} bytes, got {len(pin)}")
    return text


def _failed(uri: KeyUri, error: PKCS11Error) -> TokenError:
    return TokenError(f"{uri}: the token did not do it: {_name(error)}; look at the token, then restart this program")


def _name(error: PKCS11Error) -> str:
    said = shown(error, 200)
    return f"{type(error).__name__}{f' ({said})' if said else ''}"
