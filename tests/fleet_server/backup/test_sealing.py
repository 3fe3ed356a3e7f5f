import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fleet_server.backup import sealing
from fleet_server.backup.manifest import BackupError
from fleet_server.backup.sealing import Secret

SECRETS = {"site/server/master.key": Secret(0o600, b"\x00\xffmaster"), "site/a": Secret(0o400, b"")}
PASSPHRASE = "correct horse battery"
PRIVATE, PUBLIC = sealing.new_pair()


@pytest.mark.parametrize("sender", ["passphrase", "recipient"])
def test_what_is_sealed_opens_and_no_byte_of_it_may_be_another(sender: str) -> None:
    sealed = _sealed(sender)
    assert _opened(sender, sealed) == SECRETS
    assert b"master" not in sealed
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(BackupError):
            _opened(sender, bytes(changed))


@pytest.mark.parametrize("sender", ["passphrase", "recipient"])
def test_a_seal_that_is_cut_off_anywhere_does_not_open(sender: str) -> None:
    sealed = _sealed(sender)
    for size in range(len(sealed)):
        with pytest.raises(BackupError):
            _opened(sender, sealed[:size])


def _sealed(sender: str) -> bytes:
    if sender == "passphrase":
        return sealing.seal_to_passphrase(SECRETS, PASSPHRASE, salt=bytes(16))
    return sealing.seal_to_recipient(SECRETS, PUBLIC, ephemeral=X25519PrivateKey.from_private_bytes(b"\7" * 32))


def _opened(sender: str, sealed: bytes) -> object:
    if sender == "passphrase":
        return sealing.open_with_passphrase(sealed, PASSPHRASE)
    return sealing.open_with_key(sealed, PRIVATE)


def test_another_passphrase_or_key_opens_nothing() -> None:
    with pytest.raises(BackupError, match="another passphrase or key"):
        sealing.open_with_passphrase(_sealed("passphrase"), PASSPHRASE + "?")
    with pytest.raises(BackupError, match="another passphrase or key"):
        sealing.open_with_key(_sealed("recipient"), sealing.new_pair()[0])


def test_a_key_of_another_kind_is_refused() -> None:
    signing = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for public in (signing, b"nothing"):
        with pytest.raises(BackupError, match="recipient"):
            sealing.seal_to_recipient(SECRETS, public, ephemeral=X25519PrivateKey.generate())
