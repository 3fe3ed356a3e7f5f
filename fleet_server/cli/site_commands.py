"""``fleet-server init``, ``add-device`` and ``make-audit-key``: what makes a site, where its authorities are kept."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from broker_config.ids import ContractError, device_id
from fleet_server import site as plan
from fleet_server.access import ca
from fleet_server.adapters import site_directory
from fleet_server.config import API_PORT, ConfigError

SiteDirectory = Annotated[Path, typer.Option("--dir", help="The site's directory.", file_okay=False)]


def add_commands(app: typer.Typer) -> None:
    """Mount them on the program's command line."""
    app.command("init")(init)
    app.command("add-device")(add_device)
    app.command("make-audit-key")(make_audit_key)


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


def _refused(error: Exception) -> typer.Exit:
    typer.echo(str(error), err=True)
    return typer.Exit(1)
