"""``edge-agent enroll``: the key is made here and stays here; a claim's code gets it a certificate."""

import re
from pathlib import Path
from typing import Final

import msgspec

from broker_config import signing
from broker_config.enrolment import Enrolled, is_claim
from edge_agent import config, trusting
from edge_agent.adapters import files, x509
from edge_agent.adapters.enrolment import EnrolmentError, Listener
from edge_agent.identity import PUBLIC, SECRET, Pair, Write, put_next

AGENT_FILE: Final = "agent.toml"
RELEASE_ROOT_FILE: Final = "releases-root.json"
_HOST: Final = re.compile(r"[A-Za-z0-9.:-]{1,253}\Z")
_NAME: Final = re.compile(r"[a-z0-9_]{1,64}\Z")


def enroll(*, server: str, claim: str, ca_file: Path, directory: Path, again: bool) -> Enrolled:
    """Make *directory* what ``edge-agent run`` needs; ``agent.toml`` comes last, and stands for all of it.

    *again*: the device has an identity, and gets another one; its spool and its configuration stay.

    Raises:
        EnrolmentError, ConfigError: says what to do next. A claim that was redeemed is used up even so.
        OSError: the directory takes nothing.
    """
    if not is_claim(claim.strip()):
        raise EnrolmentError("--claim: expected ffc_ and 32 letters and digits, as `fieldfleet claim DEVICE` shows")
    agent_file = directory / AGENT_FILE
    if agent_file.exists() and not again:
        raise EnrolmentError(
            f"{directory} has an identity already; renew it: edge-agent renew --config {agent_file}, "
            "or replace it: the same command with --again"
        )
    own = _own(agent_file) if agent_file.exists() else None
    listener = Listener(server, ca_file)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = x509.new_key()
    given = listener.enroll(claim.strip(), made.csr_pem)
    if own is not None:
        _replace(own, given, made.key_pem)
    else:
        for step in _steps(directory, given, made.key_pem, server):
            files.carry_out(step)
    return given


def _own(agent_file: Path) -> config.Settings:
    """The identity that is there. Raises ConfigError."""
    return config.load(agent_file)


def _replace(own: config.Settings, given: Enrolled, key_pem: bytes) -> None:
    if given.device != own.device:
        raise EnrolmentError(f"the claim is of {given.device}, and this is {own.device}; make one for {own.device}")
    for write in _trusted(own, given):
        files.carry_out(write)
    pair = Pair(own.cert_file, own.key_file)
    with files.changing(pair):
        for step in put_next(pair, cert=_presented(given), key=key_pem):
            files.carry_out(step)


def _presented(given: Enrolled) -> bytes:
    try:
        return x509.presented(given.certificate, given.chain)
    except x509.BadIdentityError as error:
        raise EnrolmentError(f"the server's answer: {error}") from error


def _trusted(own: config.Settings, given: Enrolled) -> list[Write]:
    """Of a device that enrols again. Whom it obeys is what the operator says now, but never a version of this site
    below one that it had. Raises EnrolmentError.
    """
    steps = [trusting.keys_file(own, given.mac)]
    if own.signers_file is None or not given.signers:
        return steps
    try:
        new = signing.decode_roots(given.signers.encode())
        old = files.read_signers(own.signers_file)
    except signing.BadEnvelopeError as error:
        raise EnrolmentError(f"the server's signers are refused: {error}") from error
    except files.BadKeysError:
        old = None  # whatever is there, it is nothing that orders could be checked with
    if old is not None and old.site == new.site and new.version < old.version:
        raise EnrolmentError(
            f"the server has version {new.version} of the signers, this device had {old.version}; put the site's "
            "server/signers back as it was"
        )
    return [*steps, Write(own.signers_file, given.signers.encode(), PUBLIC)]


def _steps(directory: Path, given: Enrolled, key_pem: bytes, server: str) -> list[Write]:
    signers = [Write(directory / "signers.json", given.signers.encode(), PUBLIC)] if given.signers else []
    root = [Write(directory / RELEASE_ROOT_FILE, given.release_root.encode(), SECRET)] if given.release_root else []
    return [
        Write(directory / "device.key", key_pem, SECRET),
        Write(directory / "device.crt", _presented(given), PUBLIC),
        Write(directory / "server-ca.crt", given.server_ca.encode(), PUBLIC),
        Write(directory / "mac.json", msgspec.json.encode(given.mac) + b"\n", SECRET),
        *signers,
        *root,
        Write(directory / AGENT_FILE, agent_toml(given, server).encode(), PUBLIC),
    ]


ORDERS: Final = """
[orders]
signers_file = "signers.json"
"""

RELEASES: Final = f"""
[releases]
root_file = "{RELEASE_ROOT_FILE}"
"""


def agent_toml(given: Enrolled, server: str) -> str:
    """The configuration of a device that was just enrolled. Raises EnrolmentError: a name that cannot stand there."""
    if not _HOST.match(given.broker.host) or not _NAME.match(given.device_class) or not _NAME.match(given.profile):
        raise EnrolmentError("the server names a broker, class or profile that cannot be one")
    text = msgspec.json.encode  # a basic string of TOML escapes as JSON does
    return f"""\
device = {text(given.device).decode()}
device_class = {text(given.device_class).decode()}
profile = {text(given.profile).decode()}
state_dir = "state"

[broker]
host = {text(given.broker.host).decode()}
port = {given.broker.port}
ca_file = "server-ca.crt"
cert_file = "device.crt"
key_file = "device.key"

[enrolment]
url = {text(server).decode()}
{ORDERS if given.signers else ""}{RELEASES if given.release_root else ""}
[receipts]
mac_file = "mac.json"
"""
