"""``fieldfleet``: the operators' command."""

from pathlib import Path
from typing import Annotated, Final

import typer

from broker_config import limits
from broker_config.text import shown
from fleet_server.cli import (
    alert_commands,
    answers,
    assign_commands,
    audit_commands,
    backup_commands,
    command_commands,
    config_commands,
    enrolment_commands,
    evidence_commands,
    outbound_commands,
    rollout_commands,
    tables,
    twin_commands,
)
from fleet_server.cli.demo.fleet import Broker
from fleet_server.cli.options import (
    ENTRIES_DEFAULT,
    AsJson,
    DeviceId,
    From,
    Limit,
    RowId,
    Site,
    To,
    TokenFile,
    Url,
    between,
    failed,
    now_ms,
    server_of,
    show,
    write_new,
)
from fleet_server.cli.people_commands import add_commands as add_people_commands
from fleet_server.cli.registry_commands import add_commands
from fleet_server.cli.server import (
    SITE_VARIABLE,
    CommandError,
    Exit,
    Json,
    segment,
)
from fleet_server.cli.simulate.faults import MEANING, Mode
from fleet_server.cli.simulate.faults import parse as parse_faults

QUARANTINE_PAGE: Final = 100
PAYLOAD_CHARS_MAX: Final = 4_000

HELP: Final = f"""Operate a fleet through its server's API.

The server is that of --site DIR, of {SITE_VARIABLE}, of ./site, or of --url with --token-file.

Exit codes: 0 done, 1 the server has a problem with it, 2 wrong usage, 3 the server cannot be reached.
"""

SIMULATE_EPILOG: Final = "\n\n".join(
    [
        "Faults, each at moments that the seed decides, all but the storm for one device in twenty:",
        *(f"{fault}: {meaning}" for fault, meaning in MEANING.items()),
        "Example: fieldfleet simulate --devices 2000 --seconds 60 --faults reconnect_storm --report load.json",
    ]
)

app = typer.Typer(no_args_is_help=True, add_completion=False, help=HELP, rich_markup_mode=None)
quarantine_app = typer.Typer(no_args_is_help=True, help="Messages that were not what they said.")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(assign_commands.app, name="assign")
app.add_typer(command_commands.app, name="command")
app.add_typer(audit_commands.app, name="audit")
app.add_typer(config_commands.app, name="config")
app.add_typer(twin_commands.app, name="twin")
app.add_typer(evidence_commands.app, name="evidence")
app.add_typer(rollout_commands.app, name="rollout")
add_commands(app)
add_people_commands(app)
outbound_commands.add_commands(app)
alert_commands.add_commands(app)
enrolment_commands.add_commands(app)
backup_commands.add_commands(app)


@app.command(epilog="Example: fieldfleet device car-7")
def device(
    device: DeviceId, site: Site = None, url: Url = None, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Show one device: what of its streams is stored, and the newest readings."""
    with server_of(site, url, token_file) as server:
        summary = server.get(f"/v1/devices/{segment(device)}")
        latest = server.get(f"/v1/devices/{segment(device)}/latest")
        table = tables.device(
            answers.read(summary, answers.Device), answers.read(latest, list[answers.Latest]), now_ms=now_ms()
        )
        show({"device": summary, "latest": latest}, table, as_json=as_json)


@app.command(epilog="Example: fieldfleet series car-7 cpu --from -1h --points 60 --field cpu_pct")
def series(
    device: DeviceId,
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="Such as cpu; `fieldfleet device` lists them.")],
    from_: From = "-1h",
    to: To = "now",
    points: Annotated[int | None, typer.Option(min=1, help="Means of at most so many buckets.")] = None,
    field: Annotated[list[str] | None, typer.Option(help="Only this field; may be given again.")] = None,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show readings of one stream over time."""
    with server_of(site, url, token_file) as server:
        document = server.get(
            f"/v1/devices/{segment(device)}/series/{segment(stream)}",
            {**between(from_, to), "points": points, "fields": ",".join(field) if field else None},
        )
        show(document, tables.series(answers.read(document, answers.Series)), as_json=as_json)


@app.command(epilog="Example: fieldfleet gaps --device car-7 --from -24h")
def gaps(
    device: Annotated[str | None, typer.Option(help="Only of this device.")] = None,
    from_: From = "-24h",
    to: To = "now",
    reason: Annotated[str | None, typer.Option(help="Only of this reason, such as unexplained.")] = None,
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what is not there, and why."""
    with server_of(site, url, token_file) as server:
        document, more = server.list_all(
            "/v1/gaps",
            "gaps",
            entries_max=limit,
            parameters={**between(from_, to), "device": device, "reason": reason},
        )
        show(document, tables.gaps(answers.read(document, answers.Gaps).gaps), as_json=as_json, more=more)


@app.command(epilog="Example: fieldfleet events car-7 --from -7d")
def events(
    device: DeviceId,
    from_: From = "-24h",
    to: To = "now",
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a device's journal."""
    with server_of(site, url, token_file) as server:
        document, more = server.list_all(
            f"/v1/devices/{segment(device)}/events",
            "events",
            entries_max=limit,
            parameters=between(from_, to),
        )
        show(document, tables.events(answers.read(document, answers.Events).events), as_json=as_json, more=more)


@quarantine_app.command("list", epilog="Example: fieldfleet quarantine list")
def quarantine_list(
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List messages in quarantine, in the order they came."""
    with server_of(site, url, token_file) as server:
        document, more = server.list_all(
            "/v1/quarantine", "quarantined", entries_max=limit, page_entries_max=QUARANTINE_PAGE
        )
        found = answers.read(document, answers.QuarantineList).quarantined
        show(document, tables.quarantine(found), as_json=as_json, more=more)


@quarantine_app.command("show", epilog="Example: fieldfleet quarantine show 3 --output message.bin")
def quarantine_show(
    row_id: RowId,
    output: Annotated[
        Path | None, typer.Option(help="Write the bytes as they came to a file that is not there yet.")
    ] = None,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show the bytes of one message."""
    with server_of(site, url, token_file) as server:
        payload = server.get_bytes(f"/v1/quarantine/{row_id}")
        if output is not None:
            write_new(output, payload)
        text = shown(payload, chars_max=PAYLOAD_CHARS_MAX)
        document: Json = {"id": row_id, "payload_bytes": len(payload), "payload_hex": payload.hex()}
        show(document, tables.plain(f"{output}: {len(payload)} bytes" if output else text), as_json=as_json)


@quarantine_app.command("replay", epilog="Example: fieldfleet quarantine replay 3")
def quarantine_replay(
    row_id: RowId, site: Site = None, url: Url = None, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Admit one message again; a newer server may know it now."""
    with server_of(site, url, token_file) as server:
        document = server.post(f"/v1/quarantine/{row_id}/replay")
        show(document, tables.plain(f"{row_id} is stored"), as_json=as_json)


@app.command("demo", epilog="Example: fieldfleet demo --seconds 30 --report demo.report.json")
def demo_command(
    seconds: Annotated[float | None, typer.Option(min=1, help="End by itself after so long.")] = None,
    broker: Annotated[
        Broker, typer.Option(help="The embedded one, or the Mosquitto of this machine.")
    ] = Broker.EMBEDDED,
    report: Annotated[Path | None, typer.Option(help="Write what it came to, as JSON.")] = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Keep site, store and logs there; a temporary one if not given.")
    ] = None,
    faults: Annotated[
        bool, typer.Option("--faults", help="Cut the camera's link and kill the broker on the way (27 s).")
    ] = False,
    changes: Annotated[
        bool,
        typer.Option("--changes", help="Roll a good configuration out, and a bad one that undoes itself (60 s)."),
    ] = False,
) -> None:
    """Run a whole fleet on this machine: broker, server, and four agents, one of each class, with played instruments.
    The camera records video, if ffmpeg is there, and uploads it.

    On a terminal, keys cut a link, kill an agent or the broker, or unplug instruments, and the table shows the
    recovery. Nothing is left of it afterwards, but what --dir and --report name.
    """
    from fleet_server.cli.demo.command import demo  # noqa: PLC0415 - a site's authorities need much that others do not

    try:
        figures = demo(
            broker=broker, seconds=seconds, report=report, directory=directory, faults=faults, changes=changes
        )
    except CommandError as error:
        raise failed(error) from error
    typer.echo(figures)


@app.command("simulate", epilog=SIMULATE_EPILOG)
def simulate_command(
    devices: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many.")],
    mode: Annotated[
        Mode,
        typer.Option(
            help="sessions: a TLS connection each; identities: all over one gateway that only a bench allows."
        ),
    ] = Mode.SESSIONS,
    seconds: Annotated[float, typer.Option(min=1, help="How long, once connected; then it drains.")] = 60.0,
    broker: Annotated[Broker, typer.Option(help="Without --site: which one to start.")] = Broker.MOSQUITTO,
    site: Annotated[
        Path | None, typer.Option(help="A site whose broker and server run here, and whose ca/ is here.")
    ] = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Keep the site that is made there; a temporary one if not given.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write what it came to, as JSON.")] = None,
    streams: Annotated[str, typer.Option(help="sessions: such as cpu,memory; the class's first four if empty.")] = "",
    device_class: Annotated[str, typer.Option("--class", help="sessions: of all devices.")] = "host",
    every: Annotated[
        float, typer.Option(min=0.1, max=600, help="sessions: seconds from one batch of a stream to the next.")
    ] = 60.0,
    rows: Annotated[int, typer.Option(min=1, max=1_000, help="sessions: in a batch.")] = 6,
    receipt_wait: Annotated[
        float, typer.Option(min=1, max=600, help="sessions: seconds until a batch without a receipt is sent again.")
    ] = limits.RECEIPT_WAIT_S,
    rate: Annotated[float, typer.Option(min=0.1, max=100_000, help="identities: messages a second.")] = 1_111.0,
    connect_rate: Annotated[
        int,
        typer.Option(min=0, max=100_000, help="sessions: begun in any one second at most; 0: devices alone decide."),
    ] = 0,
    reconnect_rate: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="sessions without --site: what the server states of a second."),
    ] = None,
    faults: Annotated[str, typer.Option(help="sessions: some of the names below, with commas.")] = "",
    seed: Annotated[int, typer.Option(help="Of readings, back-off and faults.")] = 1,
    drain: Annotated[float, typer.Option(min=1, help="Seconds that the last receipt may take.")] = 120.0,
) -> None:
    """Load a broker and a server as a fleet would, and prove that nothing was lost.

    Simulated devices speak the contract: births, wills, numbered batches, receipts that are checked, back-off. Exit
    code 1: something was lost, or no receipt came for it.
    """
    from fleet_server.cli.simulate.command import Options, simulate  # noqa: PLC0415 - as for the demo

    if mode is Mode.IDENTITIES and (faults or broker is not Broker.MOSQUITTO):
        raise failed(CommandError(Exit.USAGE, "--mode identities: expected --broker mosquitto and no --faults"))
    if site is not None and (directory is not None or reconnect_rate is not None):
        raise failed(CommandError(Exit.USAGE, "--site: expected neither --dir nor --reconnect-rate"))
    try:
        chosen = parse_faults(faults)
    except ValueError as error:
        raise failed(CommandError(Exit.USAGE, f"--faults: {error}")) from error
    try:
        figures = simulate(
            Options(
                mode=mode,
                devices=devices,
                seconds=seconds,
                broker=broker,
                site=site,
                directory=directory,
                report=report,
                streams=tuple(name for name in streams.split(",") if name),
                device_class=device_class,
                every_s=every,
                rows=rows,
                receipt_wait_s=receipt_wait,
                rate=rate,
                connect_rate=connect_rate,
                reconnect_rate=reconnect_rate,
                faults=chosen,
                seed=seed,
                drain_s=drain,
            )
        )
    except CommandError as error:
        raise failed(error) from error
    typer.echo(figures)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
