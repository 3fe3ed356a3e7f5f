"""Keys in tokens as the ports know keys: the authority's as the library's own sort, the signer's as a ``SigningKey``.

The PKCS #11 library is loaded by whoever uses such a key, and by nobody else.
"""

from types import ModuleType
from typing import NoReturn

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker_config.signing import ED25519
from fleet_server.access.ca import KeyUnreachableError
from fleet_server.access.key_uri import KeyUri, TokenError
from fleet_server.access.signing import SignerError


class TokenCaKey(ec.EllipticCurvePrivateKey):
    """P-256 in a token: it signs and tells its public key; all else is refused, as the token would."""

    def __init__(self, uri: KeyUri) -> None:
        """Raises KeyUnreachableError."""
        try:
            token = _token()
            self._key = token.TokenKey(uri, token.P256)
        except TokenError as error:
            raise KeyUnreachableError(f"device CA: {error}") from error
        self._der = token.der

    @property
    def curve(self) -> ec.EllipticCurve:
        """P-256."""
        return ec.SECP256R1()

    @property
    def key_size(self) -> int:
        """In bits."""
        return self.curve.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """As the token has it; it was seen to verify what the key signs."""
        public: ec.EllipticCurvePublicKey = self._key.public
        return public

    def sign(
        self, data: bytes | bytearray | memoryview, signature_algorithm: ec.EllipticCurveSignatureAlgorithm
    ) -> bytes:
        """DER. ECDSA with SHA-256 only. Raises KeyUnreachableError."""
        if not isinstance(signature_algorithm.algorithm, hashes.SHA256):
            self._no()
        try:
            signature: bytes = self._der(self._key.sign(bytes(data)))
        except TokenError as error:
            raise KeyUnreachableError(f"device CA: {error}") from error
        return signature

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:  # noqa: ARG002
        """Refused."""
        self._no()

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        """Refused."""
        self._no()

    def private_bytes(self, *_: object, **__: object) -> bytes:
        """Refused."""
        self._no()

    def __copy__(self) -> "TokenCaKey":
        return self

    def __deepcopy__(self, memo: object) -> "TokenCaKey":
        return self

    def _no(self) -> NoReturn:
        raise NotImplementedError("a key in a token signs with ECDSA and SHA-256, and does nothing else")


class TokenSigningKey:
    """See :class:`fleet_server.access.signing.SigningKey`; Ed25519."""

    def __init__(self, uri: KeyUri) -> None:
        """Raises SignerError."""
        try:
            token = _token()
            self._key = token.TokenKey(uri, token.ED25519)
        except TokenError as error:
            raise SignerError(f"signing key: {error}") from error

    @property
    def algorithm(self) -> str:
        """Ed25519."""
        return ED25519

    @property
    def public(self) -> bytes:
        """Its 32 bytes."""
        raw: bytes = self._key.public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return raw

    def sign(self, data: bytes) -> bytes:
        """See the port."""
        try:
            signature: bytes = self._key.sign(data)
        except TokenError as error:
            raise SignerError(f"signing key: {error}") from error
        return signature


def make_ca_key(uri: KeyUri) -> TokenCaKey:
    """Made in the token, or the one that is there if it never leaves it. Raises KeyUnreachableError."""
    try:
        token = _token()
        token.make(uri, token.P256)
    except TokenError as error:
        raise KeyUnreachableError(f"device CA: {error}") from error
    return TokenCaKey(uri)


def make_signing_key(uri: KeyUri) -> tuple[TokenSigningKey, bool]:
    """As :func:`make_ca_key`; and whether it was made now. Raises SignerError."""
    try:
        token = _token()
        made: bool = token.make(uri, token.ED25519)
    except TokenError as error:
        raise SignerError(f"signing key: {error}") from error
    return TokenSigningKey(uri), made


def _token() -> ModuleType:
    try:
        from fleet_server.adapters import pkcs11_token  # noqa: PLC0415  # a library that only a key_uri needs
    except ModuleNotFoundError as error:
        raise TokenError("python-pkcs11 is missing; install it: pip install 'fieldfleet[pkcs11]'") from error
    return pkcs11_token
