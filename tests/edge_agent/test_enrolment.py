"""A device makes its own key, gets a certificate for a claim, and follows it by others; a power cut leaves one."""

import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from sqlalchemy import text

from broker_config.enrolment import Enrolled, RenewRequest, renewal_proof
from edge_agent import config, enrolling, identity, renewal
from edge_agent.adapters import files
from edge_agent.adapters import x509 as keys
from edge_agent.adapters.enrolment import EnrolmentError, Listener
from edge_agent.identity import Pair, Remove, Write
from fleet_server.access.states import Reason, State
from tests.enrolment import Office, office
from tests.steps import ROOTS


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Office]:
    with office(tmp_path / "office") as running:
        yield running


def enrolled(desk: Office, directory: Path, device: str = "car-7", *, again: bool = False) -> Enrolled:
    claim = desk.claim(device)
    return enrolling.enroll(server=desk.url, claim=claim, ca_file=desk.ca_file, directory=directory, again=again)


def leaf(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def fits(pair: Pair) -> bool:
    """Whether TLS takes it."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(*pair)
    except OSError:
        return False
    return True


# a claim becomes an identity


def test_the_device_is_what_the_claim_says_and_its_key_never_left(desk: Office, tmp_path: Path) -> None:
    given = enrolled(desk, tmp_path / "car")
    made = leaf(tmp_path / "car/device.crt")
    made.verify_directly_issued_by(desk.keys.authority().certificate)
    assert given.device == "car-7"
    assert made.subject.rfc4514_string() == "CN=car-7"
    assert fits(Pair(tmp_path / "car/device.crt", tmp_path / "car/device.key"))
    private = (tmp_path / "car/device.key").read_text()
    assert not [file for file in desk.directory.iterdir() if private.encode() in file.read_bytes()]
    for file in (tmp_path / "car").iterdir():
        secret = file.name in {"device.key", "mac.json"}
        assert stat.S_IMODE(file.stat().st_mode) == (0o600 if secret else 0o644), file


def test_the_agent_reads_what_was_written(desk: Office, tmp_path: Path) -> None:
    enrolled(desk, tmp_path / "car")
    settings = config.load(tmp_path / "car/agent.toml")
    assert (settings.device, settings.profile.name) == ("car-7", "host")
    assert settings.file.enrolment == config.EnrolmentTable(desk.url)
    assert files.read_keys(settings.mac_file).receipt.kid
    assert files.read_signers(tmp_path / "car/signers.json") == ROOTS


def test_names_in_the_request_are_not_looked_at(desk: Office) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "_server")])
    wanted = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=3), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("broker.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    given = Listener(desk.url, desk.ca_file).enroll(desk.claim(), wanted.public_bytes(Encoding.PEM).decode())
    made = x509.load_pem_x509_certificate(given.certificate.encode())
    assert made.subject.rfc4514_string() == "CN=car-7"
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    with pytest.raises(x509.ExtensionNotFound):
        made.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def request_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def tampered() -> str:
    """A request whose key is another's than who signed it."""
    der = x509.load_pem_x509_csr(request_of(ec.generate_private_key(ec.SECP256R1())).encode())
    raw = bytearray(der.public_bytes(Encoding.DER))
    raw[-1] ^= 1
    return x509.load_der_x509_csr(bytes(raw)).public_bytes(Encoding.PEM).decode()


def test_the_listener_may_be_at_an_ipv6_address(desk: Office) -> None:
    Listener("https://[2001:db8::1]:8471", desk.ca_file)
    with pytest.raises(EnrolmentError, match="expected https://HOST:PORT"):
        Listener("https://[nowhere]:8471", desk.ca_file)


@pytest.mark.parametrize(
    ("csr", "words"),
    [
        (request_of(rsa.generate_private_key(65_537, 1_024)), "expected RSA of 2048 bits"),
        (request_of(ec.generate_private_key(ec.SECP224R1())), "expected P-256"),
        (request_of(ec.generate_private_key(ec.SECP521R1())), "expected P-256"),
        (tampered(), "csr: expected"),
        ("-----BEGIN CERTIFICATE REQUEST-----\n", "expected a PKCS #10 request"),
        ("é", "expected a PKCS #10 request"),
    ],
)
def test_a_bad_request_is_refused_and_the_claim_is_good_still(desk: Office, csr: str, words: str) -> None:
    claim = desk.claim()
    listener = Listener(desk.url, desk.ca_file)
    with pytest.raises(EnrolmentError, match=words):
        listener.enroll(claim, csr)
    assert listener.enroll(claim, keys.new_key().csr_pem).device == "car-7"


def test_no_two_devices_share_a_key(desk: Office) -> None:
    made, listener = keys.new_key(), Listener(desk.url, desk.ca_file)
    listener.enroll(desk.claim(), made.csr_pem)
    with pytest.raises(EnrolmentError, match="key has a certificate already"):
        listener.enroll(desk.claim("car-8"), made.csr_pem)


def test_errors_say_what_to_do_next(desk: Office, tmp_path: Path) -> None:
    def attempt(words: str, **changed: object) -> None:
        told = {"server": desk.url, "claim": "ffc_" + "a" * 32, "ca_file": desk.ca_file, "directory": tmp_path / "x"}
        with pytest.raises(EnrolmentError, match=words):
            enrolling.enroll(**{**told, "again": False, **changed})  # type: ignore[arg-type]
        assert not (tmp_path / "x/agent.toml").exists()

    attempt("no such claim; a new claim comes from: fieldfleet claim DEVICE")
    attempt("as `fieldfleet claim DEVICE` shows", claim="ffc_short")
    attempt("expected https://HOST:PORT", server="http://localhost")
    attempt("is fleet-server running", server="https://127.0.0.1:1")
    attempt("copy it from server/server-ca.crt", ca_file=tmp_path / "none")
    attempt("--ca is the site's server-ca.crt", ca_file=desk.directory / "device-ca.crt")
    enrolled(desk, tmp_path / "car")
    attempt("has an identity already; renew it", directory=tmp_path / "car")


def test_who_tries_often_waits(desk: Office) -> None:
    listener = Listener(desk.url, desk.ca_file)
    csr = keys.new_key().csr_pem
    words = []
    for _ in range(12):
        with pytest.raises(EnrolmentError) as refused:
            listener.enroll("ffc_" + "a" * 32, csr)
        words.append(str(refused.value))
    assert "no such claim" in words[0]
    assert "tried too often" in words[-1]
    assert listener.enroll(desk.claim(), csr).device == "car-7"  # another claim is another's


# a power cut

CUT = "the power is gone"


def test_a_cut_while_enrolling_leaves_nothing_that_looks_whole(
    desk: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = files.carry_out
    for steps in range(6):
        left = [steps]

        def cut(step: Write | Remove, left: list[int] = left) -> None:
            if not left[0]:
                raise OSError(CUT)
            left[0] -= 1
            real(step)

        directory = tmp_path / f"car-{steps}"
        monkeypatch.setattr(files, "carry_out", cut)
        with pytest.raises(OSError, match=CUT):
            enrolled(desk, directory)
        assert not (directory / "agent.toml").exists()
        monkeypatch.setattr(files, "carry_out", real)
        enrolled(desk, directory)
        assert fits(Pair(directory / "device.crt", directory / "device.key"))


def test_a_renewal_that_is_cut_at_any_step_leaves_a_working_identity(desk: Office, tmp_path: Path) -> None:
    enrolled(desk, tmp_path / "car")
    settings = config.load(tmp_path / "car/agent.toml")
    own = Pair(settings.cert_file, settings.key_file)
    for steps in range(8):
        made, other = keys.new_key(), Listener(desk.url, desk.ca_file)
        given = other.enroll(desk.claim(), made.csr_pem)
        cert, key = given.certificate.encode(), made.key_pem
        plan = [*identity.put_next(own, cert=cert, key=key), *identity.follow(own, cert=cert, key=key)]
        assert len(plan) == 7
        for step in plan[:steps]:
            files.carry_out(step)
        assert any(fits(pair) for pair in files.pairs(own)), steps
        tried = files.pairs(own)[0]
        assert fits(tried), steps  # what is tried first is whole at every step
        if tried is not own:
            assert files.settle(own, files.certificate(tried))
        assert files.pairs(own) == [own]
        assert fits(own)


def test_a_renewal_that_is_killed_whenever_leaves_a_working_identity(desk: Office, tmp_path: Path) -> None:
    enrolled(desk, tmp_path / "car")
    own = Pair(tmp_path / "car/device.crt", tmp_path / "car/device.key")
    command = [sys.executable, "-m", "edge_agent.renewal", "--config", str(tmp_path / "car/agent.toml")]
    kills = 0
    for after_s in (0.02 * n for n in range(5, 25)):
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            child.wait(after_s)
        except subprocess.TimeoutExpired:
            kills += 1
        child.kill()
        child.wait()
        assert fits(files.pairs(own)[0]), after_s
        assert fits(own), after_s
    print(f"{kills} kills")
    assert subprocess.run(command, check=False, capture_output=True).returncode == renewal.RENEWED
    assert files.settle(own, files.certificate(own.next))
    assert fits(own)


def test_a_pair_that_never_connected_does_not_take_the_place_of_one_that_did(desk: Office, tmp_path: Path) -> None:
    enrolled(desk, tmp_path / "car")
    own = Pair(tmp_path / "car/device.crt", tmp_path / "car/device.key")
    before = [file.read_bytes() for file in own]
    assert renewed(desk, tmp_path / "car") == renewal.RENEWED
    connected = files.certificate(own.next)
    with files.changing(own), pytest.raises(BlockingIOError):
        files.settle(own, connected)
    assert renewed(desk, tmp_path / "car") == renewal.RENEWED  # meanwhile
    assert not files.settle(own, connected)
    assert [file.read_bytes() for file in own] == before
    newest = files.certificate(own.next)
    assert newest not in {connected, b""}
    own.next.cert_file.unlink()  # as while a further pair is being written
    assert files.certificate(own.next) == b""
    assert not files.settle(own, b"")
    assert [file.read_bytes() for file in own] == before


# renewal


def test_a_site_whose_authority_signed_itself_enrols_and_renews_too(tmp_path: Path) -> None:
    with office(tmp_path / "office", old=True) as desk:
        enrolled(desk, tmp_path / "car")
        assert renewed(desk, tmp_path / "car") == renewal.RENEWED
        leaf(tmp_path / "car/device.next.crt").verify_directly_issued_by(desk.keys.authority().certificate)


def renewed(desk: Office, directory: Path, *, if_due: bool = False) -> int:
    return renewal.renew(config.load(directory / "agent.toml"), if_due=if_due, now_s=desk.clock[0] / 1000)


def test_a_certificate_is_renewed_at_two_thirds_of_its_life_and_a_bit(desk: Office, tmp_path: Path) -> None:
    enrolled(desk, tmp_path / "car")
    assert renewed(desk, tmp_path / "car", if_due=True) == renewal.NOT_DUE
    desk.later(days=19)
    assert renewed(desk, tmp_path / "car", if_due=True) == renewal.NOT_DUE
    desk.later(days=5)
    assert renewed(desk, tmp_path / "car", if_due=True) == renewal.RENEWED
    assert renewed(desk, tmp_path / "car", if_due=True) == renewal.NOT_DUE  # one waits to be tried
    waiting = leaf(tmp_path / "car/device.next.crt")
    desk.later(days=4)
    assert renewed(desk, tmp_path / "car", if_due=True) == renewal.RENEWED  # it does not connect: another is made
    assert leaf(tmp_path / "car/device.next.crt") != waiting
    old, new = leaf(tmp_path / "car/device.crt"), leaf(tmp_path / "car/device.next.crt")
    assert old.public_key() != new.public_key()
    assert old.subject == new.subject
    assert fits(Pair(tmp_path / "car/device.next.crt", tmp_path / "car/device.next.key"))


def test_renewals_are_spread_and_each_time_the_same() -> None:
    dues = {identity.due_s(serial=serial, not_before_s=0.0, not_after_s=30.0) for serial in range(50)}
    assert dues == {identity.due_s(serial=serial, not_before_s=0.0, not_after_s=30.0) for serial in range(50)}
    assert min(dues) >= 20.0
    assert max(dues) < 23.0
    assert len(dues) > 30


def test_a_device_that_lay_in_a_drawer_renews_with_what_it_has(desk: Office, tmp_path: Path) -> None:
    enrolled(desk, tmp_path / "car")
    desk.later(days=30 + 40)
    assert renewed(desk, tmp_path / "car", if_due=True) == renewal.RENEWED
    enrolled(desk, tmp_path / "other", "car-8")
    desk.later(days=30 + 61)
    with pytest.raises(EnrolmentError, match="too long ago; have an operator make a claim"):
        renewed(desk, tmp_path / "other")


def test_a_revoked_or_superseded_device_does_not_renew(desk: Office, tmp_path: Path) -> None:
    enrolled(desk, tmp_path / "first")
    enrolled(desk, tmp_path / "second")
    with pytest.raises(EnrolmentError, match="it is superseded"):
        renewed(desk, tmp_path / "first")
    desk.store.revoke("car-7", Reason.STOLEN, now_ms=desk.clock[0])
    with pytest.raises(EnrolmentError, match="it is revoked"):
        renewed(desk, tmp_path / "second")
    enrolled(desk, tmp_path / "second", again=True)
    own = Pair(tmp_path / "second/device.crt", tmp_path / "second/device.key")
    assert files.settle(own, files.certificate(own.next))
    assert renewed(desk, tmp_path / "second") == renewal.RENEWED
    states = [each.state for each in desk.store.certificates("car-7")]
    assert states.count(State.ACTIVE) == 2


def test_after_a_restore_what_was_signed_renews_if_the_operator_says_so(desk: Office, tmp_path: Path) -> None:
    enrolled(desk, tmp_path / "car")
    forgotten = desk.store.certificates("car-7")[0].serial
    with desk.store._engine.begin() as connection:
        connection.execute(text("DELETE FROM certificate"))
    with pytest.raises(EnrolmentError, match="this server did not issue it"):
        renewed(desk, tmp_path / "car")
    desk.adopted.add(int(forgotten, 16))
    assert renewed(desk, tmp_path / "car") == renewal.RENEWED
    assert [each.state for each in desk.store.certificates("car-7")] == [State.ACTIVE, State.ACTIVE]


def test_only_the_old_key_proves_a_renewal(desk: Office, tmp_path: Path) -> None:
    enrolled(desk, tmp_path / "car")
    listener, made, stolen = Listener(desk.url, desk.ca_file), keys.new_key(), keys.new_key()
    certificate = (tmp_path / "car/device.crt").read_text()
    own_key = (tmp_path / "car/device.key").read_bytes()

    def ask(words: str, key: bytes, nonce: str, csr: str, signed_csr: str) -> None:
        proof = keys.prove(key, renewal_proof(nonce, signed_csr))
        with pytest.raises(EnrolmentError, match=words):
            listener.renew(RenewRequest(certificate, csr, nonce, proof))

    nonce = listener.nonce()
    ask("expected the certificate's key", stolen.key_pem, nonce, made.csr_pem, made.csr_pem)
    ask("expected the certificate's key", own_key, nonce, stolen.csr_pem, made.csr_pem)
    ask("nonce: expected one that this server gave", own_key, "0" * 60, made.csr_pem, made.csr_pem)
    desk.clock[0] += 301_000
    ask("nonce: expected one that this server gave", own_key, nonce, made.csr_pem, made.csr_pem)
    with office(tmp_path / "elsewhere") as elsewhere:
        enrolled(elsewhere, tmp_path / "foreign")
        certificate = (tmp_path / "foreign/device.crt").read_text()
        foreign = (tmp_path / "foreign/device.key").read_bytes()
        ask("of this site's authority", foreign, listener.nonce(), made.csr_pem, made.csr_pem)


def test_a_half_copied_identity_is_completed_before_it_renews(desk: Office, tmp_path: Path) -> None:
    enrolled(desk, tmp_path / "car")
    own = Pair(tmp_path / "car/device.crt", tmp_path / "car/device.key")
    assert renewed(desk, tmp_path / "car") == renewal.RENEWED
    new = own.next.key_file.read_bytes()
    files.carry_out(Write(own.key_file, new, identity.SECRET))
    assert not fits(own)
    assert renewed(desk, tmp_path / "car") == renewal.RENEWED
    assert own.key_file.read_bytes() == new
    assert fits(own)


def test_an_agent_that_runs_loads_no_library_for_certificates() -> None:
    code = "import sys, edge_agent.__main__, edge_agent.agent; print([n for n in sys.modules if 'cryptography' in n])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
