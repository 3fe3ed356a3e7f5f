"""``fleet-server init``, ``add-device``, ``make-audit-key``, ``roll-ca`` and ``retire-ca``: what makes a site and its
authorities, where those are kept.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from broker_config.ids import ContractError, device_id
from fleet_server import site as plan
from fleet_server.access import ca
from fleet_server.adapters import rollover, site_directory
from fleet_server.config import API_PORT, ConfigError

SiteDirectory = Annotated[Path, typer.Option("--dir", help="The site's directory.", file_okay=False)]


def add_commands(app: typer.Typer) -> None:
    """Mount them on the program's command line."""
    app.command("init")(init)
    app.command("add-device")(add_device)
    app.command("make-audit-key")(make_audit_key)
    app.command("make-proxy-certificate")(make_proxy_certificate)
    app.command("roll-ca")(roll_ca)
    app.command("retire-ca")(retire_ca)


def init(
    directory: SiteDirectory = Path("site"),
    host: Annotated[
        list[str] | None,
        typer.Option(help="A name or address of the broker; devices use the first. May be given again."),
    ] = None,
    device_port: Annotated[int, typer.Option(help="The broker's port for devices.")] = plan.DEVICE_PORT,
    server_port: Annotated[int, typer.Option(help="The broker's port for servers.")] = plan.SERVER_PORT,
    api_port: Annotated[int, typer.Option(help="The API's port, on loopback.")] = API_PORT,
    enrolment_port: Annotated[
        int, typer.Option(help="Where devices get their certificates, on every address that --host names.")
    ] = plan.ENROLMENT_PORT,
    enrolment: Annotated[
        bool, typer.Option(help="Whether the server itself signs, renews and revokes devices.")
    ] = True,
    broker_user: Annotated[
        str | None,
        typer.Option(help="Whom a broker that root starts becomes; must be able to read its files."),
    ] = None,
) -> None:
    """Make a new site: authorities, certificates, keys, and the configuration of broker and server.

    Example: fleet-server init --dir site --host broker.example
    """
    now = datetime.now(UTC)
    try:
        site = site_directory.create(
            directory,
            hosts=tuple(host or ("localhost",)),
            device_port=device_port,
            server_port=server_port,
            api_port=api_port,
            enrolment_port=enrolment_port if enrolment else None,
            broker_user=broker_user,
            now=now,
        )
    except (ContractError, ConfigError) as error:
        raise _refused(error) from error
    typer.echo(f"site {site.site_id[:8]} made in {directory}")
    public = directory / "server" / plan.AUDIT_PUBLIC_KEY
    typer.echo(f"audit: keep a copy of {public} on another machine, for fieldfleet audit verify and witness")
    typer.echo(f"broker: cd {directory / plan.BROKER_DIRECTORY} && mosquitto -c {plan.BROKER_CONFIG}")
    typer.echo(f"server: fleet-server run --config {directory / plan.SERVER_CONFIG}")
    if enrolment:
        typer.echo(f"next: fieldfleet register ID --class CLASS --site {directory}, then fieldfleet claim ID")
    else:
        typer.echo(f"next: fleet-server add-device ID --dir {directory}")
    needed = now.year + ca.INTERMEDIATE_DAYS // 365
    typer.echo(f"take offline, and keep: {directory / plan.DEVICE_ROOT}.key; nothing here needs it until {needed}")
    root_key = directory / plan.SIGNERS_ROOT_KEY
    typer.echo(f"take offline, and keep: {root_key}; it alone changes whom devices obey: fleet-server add-signer")


def add_device(
    device: Annotated[str, typer.Argument(metavar="ID", help="1 to 63 of a-z, 0-9 and '-'.")],
    device_class: Annotated[str, typer.Option(help="What kind of equipment it is.")] = "host",
    directory: SiteDirectory = Path("site"),
) -> None:
    """For benches: make what one device needs, its key too, in devices/ID of the site.

    In the field a device makes its own key and enrols: fieldfleet claim ID, then edge-agent enroll. What is made here
    nobody renews. It is revoked as every device is, by its certificate in server/benches; a server whose directory is
    elsewhere needs that file too, or fieldfleet revoke ID --certificate FILE.

    Example: fleet-server add-device car-7 --dir site
    """
    try:
        made = site_directory.add_device(directory, device_id(device), device_class, now=datetime.now(UTC))
    except (ContractError, ConfigError) as error:
        raise _refused(error) from error
    typer.echo(f"device {device} made in {made}")
    typer.echo(f"next: copy it to the device, then: edge-agent run --config {plan.AGENT_CONFIG}")


def make_audit_key(
    config: Annotated[Path, typer.Option("--config", help="The server's fleet-server.toml.", dir_okay=False)],
) -> None:
    """Make the key that signs the audit log, for a site that was made before there was one.

    Example: fleet-server make-audit-key --config site/server/fleet-server.toml
    """
    try:
        missing = site_directory.make_audit_key(config)
    except (ContractError, ConfigError) as error:
        raise _refused(error) from error
    typer.echo(f"made {config.with_name(plan.AUDIT_KEY)}; give {plan.AUDIT_PUBLIC_KEY} to who is to check exports")
    if missing:
        typer.echo(f"add to {config}:\n{missing}")


def make_proxy_certificate(
    directory: SiteDirectory = Path("site"),
    again: Annotated[
        bool, typer.Option("--again", help="Replace the one that is there, before it runs out.")
    ] = False,
) -> None:
    """Make what browsers see of the server, proxy/site.crt and site.key, signed by the site's own server authority.

    A bureau that has an authority of its own puts its certificate there instead.

    Example: fleet-server make-proxy-certificate --dir site
    """
    try:
        made = site_directory.make_proxy_certificate(directory, now=datetime.now(UTC), again=again)
    except (ContractError, ConfigError) as error:
        raise _refused(error) from error
    typer.echo(
        f"made {made}; browsers trust it with {directory / plan.SERVER_CA}.crt; good for {ca.BROKER_DAYS} days"
    )


def roll_ca(
    directory: SiteDirectory = Path("site"),
    root_key: Annotated[
        Path | None,
        typer.Option(help="The key of the devices' root; ca/device-root.key if not given.", dir_okay=False),
    ] = None,
    key_uri: Annotated[
        str | None,
        typer.Option(
            help="Of the new one's key in a token (PKCS #11), made there if it is not; a file if not given."
        ),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=ca.CA_DAYS, help="How long the new one is good.")] = (
        ca.INTERMEDIATE_DAYS
    ),
) -> None:
    """Have the root sign a new authority for devices; the one before counts until it is retired.

    No device is cut off: each renews to the new one at its usual time. Stopped half way, the command goes on where it
    was when it is given again. Exit codes: 0 done, 1 refused.

    A key in a token never leaves it: `pkcs11:token=T;object=NAME?module-path=FILE&pin-source=file:FILE`. The file
    device-ca.key then holds this URI.

    Example: fleet-server roll-ca --dir site --root-key /media/safe/device-root.key
    """
    now = datetime.now(UTC)
    try:
        rolled = rollover.roll(directory, root_key=root_key, days=days, now=now, key_uri=key_uri)
    except (ContractError, ConfigError) as error:
        raise _refused(error) from error
    name, until = ca.common_name_of(rolled.certificate), rolled.certificate.not_valid_after_utc
    begun = ", which was begun before" if rolled.resumed else ""
    typer.echo(f"{name}{begun}: signs devices until {until:%Y-%m-%d}")
    typer.echo("next: restart the server now; if it runs on a copy of server/, see deploy/README.md for what to copy")
    typer.echo("the broker need not be restarted: the server has it read its lists again")
    typer.echo("later: fieldfleet audit devices, until nobody is under the former one; then: fleet-server retire-ca")
    typer.echo("take the root's key offline again")


def retire_ca(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its common name, or how its fingerprint begins.")],
    directory: SiteDirectory = Path("site"),
    yes: Annotated[
        bool, typer.Option("--yes", help="Though it has not expired; you have seen that no device is under it.")
    ] = False,
) -> None:
    """Let a former authority count no more: a device that is still under it is refused, and must enrol again.

    So are benches' devices that add-device made under it. Exit codes: 0 done, 1 refused.

    Example: fleet-server retire-ca "fieldfleet device CA" --dir site --yes
    """
    try:
        retired = rollover.retire(directory, name, now=datetime.now(UTC), sure=yes)
    except (ContractError, ConfigError) as error:
        raise _refused(error) from error
    typer.echo(f"{ca.common_name_of(retired)} is retired")
    typer.echo("next: restart the server, then the broker: it believes a list that it has read until that runs out")


def _refused(error: Exception) -> typer.Exit:
    typer.echo(str(error), err=True)
    return typer.Exit(1)
