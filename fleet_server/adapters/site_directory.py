"""A site on disk: made whole or not at all, and never overwritten."""

import secrets as randomness
import shutil
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from broker_config.ids import DeviceId, SiteId
from fleet_server import site as plan
from fleet_server.access import ca, keys, notes, people
from fleet_server.adapters import benches
from fleet_server.adapters.authority import loaded
from fleet_server.adapters.files import PRIVATE_DIRECTORY, PRIVATE_FILE, make_private_directory, write_durably
from fleet_server.adapters.signing_key import FileKey, new_key_pem
from fleet_server.config import parse, read_tables, read_text

PUBLIC_FILE: Final = 0o644


def create(
    directory: Path,
    *,
    hosts: tuple[str, ...],
    device_port: int,
    server_port: int,
    api_port: int,
    broker_user: str | None,
    now: datetime,
    enrolment_port: int | None = None,
) -> plan.Site:
    """Make a new site in *directory*, with secrets of its own.

    Raises:
        SiteError: bad names or ports, or *directory* is there already and not empty, or cannot be made.
    """
    site = plan.new_site(
        SiteId(randomness.token_hex(plan.SITE_ID_BYTES)),
        hosts=hosts,
        device_port=device_port,
        server_port=server_port,
        api_port=api_port,
        enrolment_port=enrolment_port,
    )
    write_new(directory, plan.site_files(site, new_secrets(now), broker_user=broker_user, now=now))
    return site


def new_secrets(now: datetime) -> plan.Secrets:
    """The authorities, a master key, a signing key and a token of 256 bits, from the system's randomness."""
    root = ca.new_root("fieldfleet device root", now=now)
    signing_key_pem, signers_root_pem = new_key_pem(), new_key_pem()
    return plan.Secrets(
        audit_seed=randomness.token_bytes(notes.KEY_BYTES),
        device_root=root,
        device_ca=ca.new_intermediate(root, "fieldfleet device CA", now=now),
        server_ca=ca.new_ca("fieldfleet server CA", now=now),
        master=keys.MasterKey.new(),
        token=people.new_secret(),
        signing_key_pem=signing_key_pem,
        signing_public=FileKey(signing_key_pem).public,
        signers_root_pem=signers_root_pem,
        signers_root_public=FileKey(signers_root_pem).public,
    )


def make_audit_key(config_file: Path) -> str:
    """Make the key of the audit log beside a server's configuration; what is to be added to that.

    Raises:
        SiteError: there is a key already, which is never overwritten, or it cannot be made.
        ConfigError: no configuration of a server.
    """
    directory = config_file.resolve().parent
    config = parse(read_text(config_file), base=directory, source=str(config_file))
    if (directory / plan.AUDIT_KEY).exists():
        raise plan.SiteError(f"{directory / plan.AUDIT_KEY}: is there already, and is never overwritten")
    try:
        for name, file in plan.audit_files(config.site_id, randomness.token_bytes(notes.KEY_BYTES)).items():
            write_durably(directory / name, file.content, mode=PRIVATE_FILE if file.secret else PUBLIC_FILE)
    except OSError as error:
        raise plan.SiteError(f"{directory}: the key cannot be made: {error}") from error
    return "" if config.audit.key_file else plan.audit_table()


def make_proxy_certificate(directory: Path, *, now: datetime, again: bool) -> Path:
    """Make the certificate that browsers see, and its key; return where the certificate is.

    Raises:
        ConfigError: *directory* is no site.
        SiteError: there is one and not *again*, or it cannot be made.
    """
    site = read_site(directory)
    certificate, key = directory / plan.PROXY_CERTIFICATE, directory / plan.PROXY_KEY
    if certificate.exists() and not again:
        raise plan.SiteError(f"{certificate}: is there already; --again replaces it")
    try:
        hosts = tuple(dict.fromkeys((*site.hosts, *plan.HOST_ALWAYS)))
        issued = ca.issue_broker(_read_issued(directory, plan.SERVER_CA), hosts, now=now)
        make_private_directory(certificate.parent)
        write_durably(key, issued.key_pem)
        write_durably(certificate, issued.certificate_pem, mode=PUBLIC_FILE)
    except (OSError, ca.CaError) as error:
        raise plan.SiteError(f"{directory}: the certificate cannot be made: {error}") from error
    return certificate


def write_new(directory: Path, files: plan.Files) -> None:
    """Make *directory* with *files*; durable, and whole or not there.

    Raises:
        SiteError: *directory* is there already and not empty, or cannot be made.
    """
    partial = directory.with_name(f".{directory.name}.{randomness.token_hex(4)}")
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise plan.SiteError(f"{directory}: is there already, and is never overwritten")
        directory.parent.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        partial.mkdir(mode=PRIVATE_DIRECTORY)
        try:
            for name, file in files.items():
                path = partial / name
                path.parent.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
                write_durably(path, file.content, mode=PRIVATE_FILE if file.secret else PUBLIC_FILE)
            partial.rename(directory)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise plan.SiteError(f"{directory}: cannot be made: {error}") from error


def read_site(directory: Path) -> plan.Site:
    """Read a site's own file.

    Raises:
        ConfigError: it is not there, or not what ``init`` wrote.
    """
    path = directory / plan.SITE_FILE
    return read_tables(read_text(path), plan.Site, base=directory, source=str(path))


def add_device(directory: Path, device: DeviceId, device_class: str, *, now: datetime) -> Path:
    """Make *device*'s directory in a site; return it.

    Raises:
        ConfigError: *directory* is no site.
        SiteError: the device is there already, or the site's authority or keys cannot be read.
        ContractError: no such device class, or an authority that is none.
    """
    site = read_site(directory)
    try:
        files = plan.device_files(
            site,
            device,
            device_class=device_class,
            device_ca=loaded(_read_issued(directory, plan.DEVICE_CA)),
            server_ca_pem=(directory / f"{plan.SERVER_CA}.crt").read_bytes(),
            master=keys.MasterKeys.parse((directory / plan.MASTER_KEY_FILE).read_text(encoding="ascii")).current,
            signers_json=(directory / plan.SIGNERS_FILE).read_bytes(),
            now=now,
        )
    except (OSError, ca.CaError) as error:
        raise plan.SiteError(f"{directory}: cannot be read: {error}") from error
    target = directory / "devices" / device
    try:
        if site.enrolment_port is not None and not target.exists():
            # first: a device that can connect must be one that can be put out
            leaf = ca.certificate_of(ca.Issued(files["device.crt"].content, b""))  # and not what is behind it
            benches.add(directory / plan.BENCHES_DIRECTORY, device, leaf.public_bytes(Encoding.PEM))
    except OSError as error:
        raise plan.SiteError(f"{directory}: {error}") from error
    write_new(target, files)
    return target


def _read_issued(directory: Path, name: str) -> ca.Issued:
    return ca.Issued((directory / f"{name}.crt").read_bytes(), (directory / f"{name}.key").read_bytes())
