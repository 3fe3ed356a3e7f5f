"""Keys in a real token: they sign there, do not leave it, and each fault says what is to be done."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pkcs11
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import load_pem_x509_crl
from pkcs11 import Attribute, ObjectClass

from fleet_server.access import ca
from fleet_server.access.key_uri import KeyUri
from fleet_server.access.signing import SignerError
from fleet_server.adapters import pkcs11_token
from fleet_server.adapters.authority import FileKeys
from fleet_server.adapters.token_key import TokenCaKey, TokenSigningKey, make_ca_key, make_signing_key
from tests.softhsm import MODULE, PIN, UTIL, Tokens, begin_anew, softhsm

pytestmark = pytest.mark.server(UTIL)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
CA = "object=device-ca"


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[Tokens]:
    with softhsm(tmp_path / "hsm") as made:
        yield made


def uri(tokens: Tokens, key: str = CA) -> KeyUri:
    return KeyUri.parse(tokens.uri(key))


def authority(tokens: Tokens) -> ca.Ca:
    root = ca.Ca.load(ca.new_root("root", now=NOW))
    key = make_ca_key(uri(tokens))
    certificate = ca.sign_intermediate(root, "devices", key.public_key(), now=NOW)
    return ca.Ca.of(certificate.public_bytes(Encoding.PEM), key)


def generate(tokens: Tokens, sort: pkcs11_token.Sort = pkcs11_token.P256, **more: object) -> None:
    """A key as somebody else makes one."""
    session = tokens.session()
    parameters = session.create_domain_parameters(sort.key_type, {Attribute.EC_PARAMS: sort.parameters}, local=True)
    parameters.generate_keypair(mechanism=sort.make, store=True, label="device-ca", **more)  # type: ignore[arg-type]
    session.close()


def test_an_authority_in_a_token_signs_leaves_and_lists(tokens: Tokens) -> None:
    own = authority(tokens)
    leaf = ca.new_device(own, "car-7", now=NOW, life=timedelta(days=30))
    ca.certificate_of(leaf).verify_directly_issued_by(own.certificate)
    pem = ca.sign_revocations(own, [ca.Revoked(7, NOW)], updated=NOW, until=NOW + timedelta(days=1))
    crl = load_pem_x509_crl(pem)
    assert crl.is_signature_valid(own.key.public_key())
    assert crl.get_revoked_certificate_by_serial_number(7) is not None


def test_the_key_is_in_the_token_for_good(tokens: Tokens) -> None:
    make_ca_key(uri(tokens))
    make_signing_key(uri(tokens, "object=signer"))
    session = tokens.session()
    private = list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}))
    assert len(private) == 2
    for key in private:
        assert (key[Attribute.EXTRACTABLE], key[Attribute.SENSITIVE]) == (False, True)
        with pytest.raises(pkcs11.AttributeSensitive):
            key[Attribute.VALUE]
        with pytest.raises(pkcs11.AttributeReadOnly):
            key[Attribute.EXTRACTABLE] = True
    session.close()


def test_an_authoritys_key_does_nothing_but_sign(tokens: Tokens) -> None:
    key = make_ca_key(uri(tokens))
    assert (key.key_size, key.curve.name) == (256, "secp256r1")
    other = ec.generate_private_key(ec.SECP256R1())
    for asked in (
        lambda: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.private_numbers,
        lambda: key.exchange(ec.ECDH(), other.public_key()),
        lambda: key.sign(b"", ec.ECDSA(hashes.SHA384())),
    ):
        with pytest.raises(NotImplementedError, match="ECDSA and SHA-256"):
            asked()


def test_a_signing_key_in_a_token_signs_as_ed25519_does(tokens: Tokens) -> None:
    key, made = make_signing_key(uri(tokens, "object=signer"))
    again, made_again = make_signing_key(uri(tokens, "object=signer"))
    assert (made, made_again, again.public) == (True, False, key.public)
    Ed25519PublicKey.from_public_bytes(key.public).verify(key.sign(b"an order"), b"an order")


def test_any_thread_may_sign_and_two_keys_of_a_token_do_not_log_each_other_out(tokens: Tokens) -> None:
    own, (signer, _) = make_ca_key(uri(tokens)), make_signing_key(uri(tokens, "object=signer"))
    public = Ed25519PublicKey.from_public_bytes(signer.public)

    def both(number: int) -> None:
        data = b"%d" % number
        own.public_key().verify(own.sign(data, ec.ECDSA(hashes.SHA256())), data, ec.ECDSA(hashes.SHA256()))
        public.verify(signer.sign(data), data)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(both, range(60)))


def test_a_session_that_died_is_opened_again(tokens: Tokens) -> None:
    key, _ = make_signing_key(uri(tokens, "object=signer"))
    key.sign(b"before")
    tokens.kill_sessions()
    Ed25519PublicKey.from_public_bytes(key.public).verify(key.sign(b"after"), b"after")


def test_a_token_that_is_away_is_an_error_and_one_that_is_back_signs(tokens: Tokens) -> None:
    own = authority(tokens)
    kept, away = tokens.directory / "tokens", tokens.directory / "away"
    tokens.kill_sessions()
    kept.rename(away)
    kept.mkdir()
    for _ in range(2):
        with pytest.raises(ca.KeyUnreachableError, match="expected one of label site, got 0"):
            ca.new_device(own, "car-7", now=NOW, life=timedelta(days=1))
    kept.rmdir()
    away.rename(kept)
    leaf = ca.new_device(own, "car-7", now=NOW, life=timedelta(days=1))
    ca.certificate_of(leaf).verify_directly_issued_by(own.certificate)


def test_a_session_that_finds_another_key_of_that_name_signs_nothing(tokens: Tokens) -> None:
    key, _ = make_signing_key(uri(tokens, "object=signer"))
    session = tokens.session()
    for each in list(session.get_objects()):
        each.destroy()
    session.close()
    make_signing_key(uri(tokens, "object=signer"))
    with pytest.raises(SignerError, match="is another key than at the start"):
        key.sign(b"an order")


def test_a_wrong_pin_is_tried_once_and_a_corrected_file_counts(tokens: Tokens) -> None:
    make_ca_key(uri(tokens))
    begin_anew()
    tokens.pin_file.write_text("0000-wrong\n")
    for said in (f"refused the PIN in {tokens.pin_file}", f"refused this PIN before; correct {tokens.pin_file}"):
        with pytest.raises(ca.KeyUnreachableError, match=said) as refused:
            TokenCaKey(uri(tokens))
        assert "0000-wrong" not in str(refused.value)
    tokens.pin_file.write_text(PIN)
    assert TokenCaKey(uri(tokens)).sign(b"", ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (PIN, 0o640, "only its owner may read"),
        ("", 0o600, "expected 1 to 256 bytes, got 0"),
        ("1" * 300, 0o600, "expected 1 to 256 bytes"),
        (None, 0o600, "expected a readable file"),
    ],
)
def test_a_pin_file_that_is_none_is_refused(tokens: Tokens, content: str | None, mode: int, said: str) -> None:
    make_ca_key(uri(tokens))
    begin_anew()
    if content is None:
        tokens.pin_file.unlink()
    else:
        tokens.pin_file.write_text(content)
        tokens.pin_file.chmod(mode)
    with pytest.raises(ca.KeyUnreachableError, match=said):
        TokenCaKey(uri(tokens))


def test_a_token_a_key_or_a_library_that_is_not_there_is_named(tokens: Tokens, tmp_path: Path) -> None:
    make_ca_key(uri(tokens))
    (tmp_path / "text.so").write_text("no library")
    for text, said in (
        (tokens.uri(CA, token="depot"), "expected one of label depot, got 0; there are: site"),
        (tokens.uri("object=other"), "key other in token site: expected one private key, got none"),
        (
            tokens.uri(CA, module=tmp_path / "none.so"),
            "module-path: expected the token's PKCS #11 library, got no file",
        ),
        (tokens.uri(CA, module=tmp_path / "text.so"), "cannot be used as a PKCS #11 library"),
    ):
        with pytest.raises(ca.KeyUnreachableError, match=said):
            TokenCaKey(KeyUri.parse(text))


def test_two_tokens_of_a_label_are_refused(tokens: Tokens) -> None:
    make_ca_key(uri(tokens))
    tokens.add("site")
    with pytest.raises(ca.KeyUnreachableError, match="expected one of label site, got 2"):
        TokenCaKey(uri(tokens))


def test_of_two_keys_of_a_label_the_id_says_which(tokens: Tokens) -> None:
    generate(tokens, id=b"\1")
    generate(tokens, id=b"\2")
    for does in (TokenCaKey, make_ca_key):
        with pytest.raises(ca.KeyUnreachableError, match="expected one private key, got several; say which with id"):
            does(uri(tokens))
    first, second = (TokenCaKey(uri(tokens, f"{CA};id=%0{number}")) for number in (1, 2))
    assert first.public_key() != second.public_key()


def test_a_key_of_another_sort_is_refused(tokens: Tokens) -> None:
    make_ca_key(uri(tokens))
    with pytest.raises(SignerError, match="expected a key of sort Ed25519, got another"):
        TokenSigningKey(uri(tokens))
    with pytest.raises(SignerError, match="expected a key of sort Ed25519, got another"):
        make_signing_key(uri(tokens))


def test_a_public_key_that_is_not_the_private_keys_is_found_out(tokens: Tokens) -> None:
    generate(tokens, id=b"\1")
    generate(tokens, id=b"\2")
    session = tokens.session()
    for kind, number in ((ObjectClass.PRIVATE_KEY, b"\1"), (ObjectClass.PUBLIC_KEY, b"\2")):
        next(iter(list(session.get_objects({Attribute.CLASS: kind, Attribute.ID: number})))).destroy()
    session.close()
    with pytest.raises(ca.KeyUnreachableError, match="is not the private key's"):
        TokenCaKey(uri(tokens))


def test_a_key_that_can_be_taken_out_is_not_taken_for_one_that_cannot(tokens: Tokens) -> None:
    generate(tokens, private_template={Attribute.EXTRACTABLE: True})
    with pytest.raises(ca.KeyUnreachableError, match="can be taken out of the token"):
        make_ca_key(uri(tokens))


def test_another_authoritys_key_is_not_the_certificates(tokens: Tokens, tmp_path: Path) -> None:
    make_ca_key(uri(tokens))
    (tmp_path / "ca.crt").write_bytes(ca.new_ca("devices", now=NOW).certificate_pem)
    for key in (uri(tokens), tmp_path / "ca.key"):
        (tmp_path / "ca.key").write_text(tokens.uri(CA))
        with pytest.raises(ca.CaError, match="the key is not the certificate's"):
            FileKeys(tmp_path / "ca.crt", key)


def test_the_library_is_loaded_by_whoever_has_a_key_in_a_token_alone() -> None:
    import subprocess
    import sys

    code = "import sys, fleet_server.signer, fleet_server.identities; sys.exit('pkcs11' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert MODULE.is_file()
