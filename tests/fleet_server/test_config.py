"""The server's configuration is whole and right, or every fault is told at once."""

from pathlib import Path

import pytest

from fleet_server import config
from fleet_server.access.key_uri import KeyUri
from fleet_server.registry.readiness import Thresholds

SITE = "5a" * 32
SMALLEST = f"""
site_id = "{SITE}"
state_dir = "state"
[broker]
host = "localhost"
port = 8884
ca_file = "server-ca.crt"
cert_file = "server.crt"
key_file = "server.key"
[mac]
master_key_file = "master.key"
[api]
token_file = "api-token"
"""


def faults_of(text: str) -> tuple[str, ...]:
    with pytest.raises(config.ConfigError) as caught:
        config.parse(text, base=Path("/etc/ff"))
    return caught.value.faults


def test_the_smallest_file_has_every_default() -> None:
    parsed = config.parse(SMALLEST, base=Path("/etc/ff"))
    assert parsed.shards == config.Shards(0, 255)
    assert parsed.lease.ttl_s == 10
    assert (parsed.ingest.group_records_min, parsed.ingest.receipt_every) == (500, 10)
    assert parsed.broker.reconnects_a_second_max == 300
    assert parsed.api.url == "http://127.0.0.1:8470"


def test_paths_are_relative_to_the_file_and_absolute_ones_stay() -> None:
    parsed = config.parse(SMALLEST.replace('"master.key"', '"/run/keys/master"'), base=Path("/etc/ff"))
    assert parsed.broker.ca_file == Path("/etc/ff/server-ca.crt")
    assert parsed.mac.master_key_file == Path("/run/keys/master")


@pytest.mark.parametrize(
    ("text", "shards"), [("00-ff", (0, 255)), ("7a", (0x7A, 0x7A)), ("80-ff", (128, 255)), ("00-00", (0, 0))]
)
def test_shards(text: str, shards: tuple[int, int]) -> None:
    assert config.parse(f'shards = "{text}"\n{SMALLEST}', base=Path()).shards == shards


@pytest.mark.parametrize("text", ['"ff-00"', '"0-ff"', '""', '"00-ff-01"', "255", '"FF"'])
def test_shards_that_are_none_are_refused(text: str) -> None:
    (fault,) = faults_of(f"shards = {text}\n{SMALLEST}")
    assert fault.startswith("shards: expected")


def test_every_fault_is_reported_at_once() -> None:
    text = (
        SMALLEST.replace("port = 8884", 'port = "8884"')
        .replace('host = "localhost"\n', "keep_alive = 60\n")
        .replace("[mac]", "[lease]\nttl_s = -1\n[mac]")
        .replace("[api]", '[api]\nhost = "0.0.0.0"')
        .replace(SITE, "5a")
    )
    faults = faults_of("colour = 1\n" + text)
    assert [fault.split(":")[0] for fault in faults] == [
        "colour",
        "site_id",
        "broker.keep_alive",
        "broker.host",
        "broker.port",
        "lease.ttl_s",
    ]
    assert "broker.port: expected `int`, got `str`, got '8884'" in faults


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "fleet.example", "::"])
def test_an_api_that_strangers_reach_is_refused(host: str) -> None:
    (fault,) = faults_of(f'{SMALLEST}host = "{host}"\n')
    assert fault.startswith("api.host: expected a loopback address")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_is_taken(host: str) -> None:
    assert config.parse(f'{SMALLEST}host = "{host}"\n', base=Path()).api.host == host


def test_what_is_no_toml_is_one_fault() -> None:
    (fault,) = faults_of("[broker")
    assert fault.startswith("not TOML:")


def test_a_table_that_is_none_is_a_fault() -> None:
    assert "lease: expected `object`, got `int`, got '3'" in faults_of("lease = 3\n" + SMALLEST)


def test_a_loaded_file_names_missing_files_and_open_secrets(tmp_path: Path) -> None:
    (tmp_path / "fleet-server.toml").write_text(SMALLEST)
    for name in ("server-ca.crt", "server.crt", "server.key", "api-token"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "api-token").chmod(0o640)
    with pytest.raises(config.ConfigError) as caught:
        config.load(tmp_path / "fleet-server.toml")
    faults = [fault.split(":")[0] for fault in caught.value.faults]
    assert faults == ["mac.master_key_file", "api.token_file", "audit.key_file"]
    assert "fleet-server make-audit-key --config" in caught.value.faults[-1]


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match="cannot be read"):
        config.load(tmp_path / "none.toml")


INFLUX = SMALLEST + '[influx]\nretention_d = 30\nurl = "{url}"\n'


def test_no_influx_is_no_projection_and_the_smallest_has_every_default() -> None:
    assert config.parse(SMALLEST, base=Path()).influx is None
    influx = config.parse(INFLUX.format(url="http://127.0.0.1:8086"), base=Path("/etc/ff")).influx
    assert influx is not None
    assert (influx.flavour, influx.org, influx.bucket, influx.token_file) == ("v2", "fieldfleet", "fieldfleet", None)
    assert (influx.points_max, influx.manage, influx.late_kept) == (5_000, True, True)
    assert [(tier.name, tier.every_min) for tier in influx.tiers_kept] == [("5m", 5), ("1h", 60)]


def test_a_server_that_makes_no_buckets_writes_to_the_one_there_is() -> None:
    text = INFLUX.format(url="http://127.0.0.1:8086")
    influx = config.parse(f"{text}manage = false\n", base=Path()).influx
    assert influx is not None
    assert (influx.tiers_kept, influx.late_kept) == ((), False)
    said = 'manage = false\nlate = true\ntiers = [{ name = "10m", every_min = 10, retention_d = 90 }]\n'
    influx = config.parse(f"{text}{said}", base=Path()).influx
    assert influx is not None
    assert ([tier.name for tier in influx.tiers_kept], influx.late_kept) == (["10m"], True)


@pytest.mark.parametrize(
    "tiers",
    [
        '[{ name = "late", every_min = 5, retention_d = 1 }]',
        '[{ name = "a", every_min = 5, retention_d = 1 }, { name = "a", every_min = 10, retention_d = 1 }]',
        '[{ name = "a", every_min = 7, retention_d = 1 }]',
        '[{ name = "A b", every_min = 5, retention_d = 1 }]',
    ],
)
def test_tiers_that_are_refused(tiers: str) -> None:
    (found,) = faults_of(f"{INFLUX.format(url='http://127.0.0.1:8086')}tiers = {tiers}\n")
    assert found.startswith("influx.tiers: ")


@pytest.mark.parametrize(
    ("url", "extra"),
    [
        ("http://localhost:8086", ""),
        ("http://[::1]:8086", ""),
        ("https://influx.example", ""),
        ("http://influx.example:8086", "allow_plain = true\n"),
    ],
)
def test_urls_that_are_taken(url: str, extra: str) -> None:
    influx = config.parse(INFLUX.format(url=url) + extra, base=Path()).influx
    assert influx is not None
    assert influx.url == url


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://influx.example:8086", "influx.url: expected https, or influx.allow_plain = true"),
        ("http://192.0.2.1:8086", "influx.url: expected https, or influx.allow_plain = true"),
        ("https://me:secret@influx.example", "influx.url: expected no user in it"),
        ("influx.example:8086", "influx.url: expected a URL such as"),
        ("ftp://127.0.0.1", "influx.url: expected a URL such as"),
        ("http://", "influx.url: expected a URL such as"),
        ("http://127.0.0.1:x", "influx.url: expected a URL such as"),
        ("http://127.0.0.1:99999", "influx.url: expected a URL such as"),
        ("http://127.0.0.1/?db=x", "influx.url: expected a URL such as"),
        ("http://[::1", "influx.url: expected a URL such as"),
    ],
)
def test_urls_that_are_refused(url: str, fault: str) -> None:
    (found,) = faults_of(INFLUX.format(url=url))
    assert found.startswith(fault)
    assert "secret" not in found


@pytest.mark.parametrize(
    "line",
    ['flavour = "v3"', 'bucket = "a b"', 'org = ""', "points_max = 10", "retention_d = -1"],
)
def test_settings_of_influx_that_are_refused(line: str) -> None:
    text = INFLUX.format(url="http://127.0.0.1:8086")
    name = line.split(" ", maxsplit=1)[0]
    text = text.replace("retention_d = 30", line) if name == "retention_d" else f"{text}{line}\n"
    (found,) = faults_of(text)
    assert found.startswith(f"influx.{name}: expected")


def test_a_token_that_others_may_read_is_a_fault(tmp_path: Path) -> None:
    for name in ("server-ca.crt", "server.crt", "server.key", "api-token", "master.key", "token"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o600 if name != "token" else 0o644)
    text = INFLUX.format(url="http://127.0.0.1:8086") + 'token_file = "token"\nca_file = "none"\n'
    (tmp_path / "fleet-server.toml").write_text(text)
    with pytest.raises(config.ConfigError) as caught:
        config.load(tmp_path / "fleet-server.toml")
    faults = [fault.split(":")[0] for fault in caught.value.faults]
    assert faults == ["audit.key_file", "influx.token_file", "influx.ca_file"]


MAIL = """
[mail]
host = "mail.example.org"
from = "fleet@example.org"
to = ["duty@example.org"]
"""


def test_no_mail_is_none_and_the_smallest_has_every_default() -> None:
    assert config.parse(SMALLEST, base=Path()).mail is None
    assert config.parse(SMALLEST, base=Path()).outbound == config.Outbound(None, 90)
    mail = config.parse(SMALLEST + MAIL, base=Path()).mail
    assert mail == config.Mail(host="mail.example.org", sender="fleet@example.org", to=("duty@example.org",))
    assert (mail.port, mail.tls, mail.severity, mail.digest_s) == (587, "starttls", "warning", 60)


def test_mail_in_full() -> None:
    more = """\
port = 465
tls = "tls"
user = "fleet"
password_file = "mail-password"
kinds = ["gap.lost", "broker.lost"]
severity = "alarm"
org = "hq/station-7"
digest_s = 300
"""
    mail = config.parse(SMALLEST + MAIL + more, base=Path("/etc/ff")).mail
    assert mail is not None
    assert (mail.kinds, mail.org) == (("gap.lost", "broker.lost"), "hq/station-7")
    assert mail.password_file == Path("/etc/ff/mail-password")


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ('to = ["duty@example.org\\nBcc: thief@example.org"]', "mail.to"),
        ('to = ["Duty <duty@example.org>"]', "mail.to"),
        ('to = ["duty"]', "mail.to"),
        ("to = []", "mail.to"),
        ('from = "fleet@example.org\\r\\nBcc: x@example.org"', "mail.from"),
        ('from = ""', "mail.from"),
        ('tls = "none"', "mail.tls"),  # to another machine
        ('tls = "ssl"', "mail.tls"),
        ('kinds = ["device.exploded"]', "mail.kinds"),
        ('severity = "mild"', "mail.severity"),
        ('org = "HQ"', "mail.org"),
        ("digest_s = -1", "mail.digest_s"),
        ('user = "fleet"', "mail.password_file"),
        ('password = "secret"', "mail.password"),
    ],
)
def test_mail_that_cannot_be_sent_so_is_refused(line: str, where: str) -> None:
    name = line.split(" ", maxsplit=1)[0]
    kept = "".join(f"{each}\n" for each in MAIL.splitlines() if not each.startswith(f"{name} ="))
    (fault,) = faults_of(SMALLEST + kept + line)
    assert fault.split(":")[0] == where


def test_mail_to_this_machine_needs_no_tls() -> None:
    text = SMALLEST + MAIL.replace("mail.example.org", "127.0.0.1") + 'tls = "none"'
    assert config.parse(text, base=Path()).mail is not None


OIDC = (
    SMALLEST
    + """[oidc]
issuer = "{issuer}"
client_id = "fieldfleet"
redirect_url = "{redirect}"
"""
)
CALLBACK = "https://fleet.example/v1/sign-in/callback"


def test_no_oidc_is_tokens_only_and_the_smallest_has_every_default() -> None:
    assert config.parse(SMALLEST, base=Path()).oidc is None
    oidc = config.parse(OIDC.format(issuer="https://login.example", redirect=CALLBACK), base=Path()).oidc
    assert oidc is not None
    assert (oidc.session_h, oidc.idle_min, oidc.landing) == (12.0, 60.0, "/")
    assert oidc.signed_out_url == ""
    assert (oidc.require_acr, oidc.require_amr, oidc.groups, oidc.client_secret_file) == ((), (), (), None)


def test_what_makes_a_class_ready_is_as_its_table_says_and_nothing_else() -> None:
    text = SMALLEST + "[readiness.body_camera]\nbattery_pct_min = 50\n"
    assert config.parse(text, base=Path()).readiness == {"body_camera": Thresholds(battery_pct_min=50)}
    assert config.parse(SMALLEST, base=Path()).readiness == {}


@pytest.mark.parametrize(
    ("table", "where"),
    [
        ("[readiness.toaster]\n", "readiness.toaster"),
        ("[readiness.body_camera]\nbattery_pct_min = 101\n", "readiness"),
        ("[readiness.body_camera]\nbatery_pct_min = 50\n", "batery_pct_min"),
        ('[readiness.body_camera]\nagent_min = "newest"\n', "agent_min"),
    ],
)
def test_a_table_of_readiness_that_asks_for_nothing_known_is_refused(table: str, where: str) -> None:
    with pytest.raises(config.ConfigError, match=where):
        config.parse(SMALLEST + table, base=Path())


def test_groups_are_mapped_to_grants() -> None:
    text = OIDC.format(issuer="https://login.example", redirect=CALLBACK)
    text += '[[oidc.groups]]\ngroup = "wheel"\nrole = "administrator"\n'
    text += '[[oidc.groups]]\ngroup = "seven"\nrole = "viewer"\nnode = "station-7"\n'
    oidc = config.parse(text, base=Path()).oidc
    assert oidc is not None
    assert [(each.group, each.role.value, each.node) for each in oidc.groups] == [
        ("wheel", "administrator", None),
        ("seven", "viewer", "station-7"),
    ]


@pytest.mark.parametrize(
    ("issuer", "redirect", "extra", "fault"),
    [
        ("http://login.example", CALLBACK, "", "oidc.issuer: expected https, or http on this machine"),
        ("https://me@login.example", CALLBACK, "", "oidc.issuer: expected https"),
        ("https://login.example?x=1", CALLBACK, "", "oidc.issuer: expected https"),
        ("https://login.example", "https://fleet.example/", "", "oidc.redirect_url: expected https://HOST/v1/"),
        ("https://login.example", CALLBACK.replace("https", "http"), "", "oidc.redirect_url: expected https"),
        ("https://login.example", CALLBACK, 'scopes = ["profile"]', "oidc.scopes: expected openid among them"),
        ("https://login.example", CALLBACK, "session_h = 200", "oidc.session_h: expected"),
        ("https://login.example", CALLBACK, "idle_min = 1", "oidc.idle_min: expected"),
        ("https://login.example", CALLBACK, 'landing = "//evil.example"', "oidc.landing: expected"),
        (
            "https://login.example",
            CALLBACK,
            'signed_out_url = "https://evil.example/v1/sign-out/callback"',
            "oidc.signed_out_url: expected https://fleet.example/v1/sign-out/callback, got",
        ),
        ("https://login.example", CALLBACK, 'landing = "https://evil.example"', "oidc.landing: expected"),
        ("https://login.example", CALLBACK, 'groups = [{group = "a", role = "king"}]', "oidc.groups: invalid"),
        (
            "https://login.example",
            CALLBACK,
            'groups = [{group = "a", role = "viewer", x = 1}]',
            "oidc.groups: obj",
        ),
        ("https://login.example", CALLBACK, "client_secret = 1", "oidc.client_secret: unknown"),
    ],
)
def test_an_oidc_table_that_cannot_be_is_told(issuer: str, redirect: str, extra: str, fault: str) -> None:
    with pytest.raises(config.ConfigError) as told:
        config.parse(OIDC.format(issuer=issuer, redirect=redirect) + extra + "\n", base=Path())
    assert fault in str(told.value)


URI = "pkcs11:token=a;object=b?module-path=/m.so&pin-source=file:/pin"
FILE, KEY_URI = 'key_file = "a.key"', f'key_uri = "{URI}"'


def signing_with(*lines: str) -> str:
    return "\n".join([SMALLEST, "[device_ca]", 'cert_file = "a.crt"', 'crl_file = "a.crl"', *lines])


def test_the_authoritys_key_is_in_a_file_or_in_a_token() -> None:
    for line, key in ((FILE, Path("/etc/ff/a.key")), (KEY_URI, KeyUri.parse(URI))):
        parsed = config.parse(signing_with(line), base=Path("/etc/ff")).device_ca
        assert parsed is not None
        assert parsed.key == key


@pytest.mark.parametrize("lines", [(), (FILE, KEY_URI)])
def test_the_authoritys_key_is_in_one_place(lines: tuple[str, ...]) -> None:
    assert faults_of(signing_with(*lines)) == ("device_ca: expected one of key_file and key_uri",)


def test_the_signing_key_is_in_one_place() -> None:
    assert faults_of(f"{SMALLEST}[signer]\n{FILE}\n{KEY_URI}") == ("signer: expected one of key_file and key_uri",)


def test_a_pin_in_the_file_is_refused_and_not_shown() -> None:
    (fault,) = faults_of(f'{SMALLEST}[signer]\nkey_uri = "pkcs11:token=a;object=b?pin-value=4711"')
    assert fault.startswith("signer.key_uri: pin-value: no PIN belongs")
    assert "4711" not in fault


def test_the_signer_takes_a_key_in_a_token_and_needs_one(tmp_path: Path) -> None:
    file = tmp_path / "fleet-server.toml"
    table = f'{SMALLEST}[signer]\nsocket_file = "s"\ncounter_file = "c"\n'
    file.write_text(table + KEY_URI)
    assert config.load_signer(file).key == KeyUri.parse(URI)
    file.write_text(table)
    with pytest.raises(config.ConfigError, match="key_file or key_uri"):
        config.load_signer(file)


BUCKET = (
    SMALLEST.replace(
        "[mac]",
        '[signer]\nsocket_file = "signer.sock"\n[device_ca]\ncert_file = "ca.crt"\n'
        'key_file = "ca.key"\ncrl_file = "ca.crl"\n[mac]',
    )
    + """[evidence]
directory = "evidence"
{extra}
[evidence.s3]
endpoint = "{endpoint}"
bucket = "evidence"
credentials_file = "s3.key"
"""
)


def test_second_copies_in_a_bucket_are_locked_for_half_a_year() -> None:
    parsed = config.parse(BUCKET.format(endpoint="https://s3.example:9000", extra=""), base=Path("/etc/ff"))
    assert parsed.evidence is not None
    s3 = parsed.evidence.s3
    assert s3 is not None
    assert (s3.credentials_file, s3.lock_d, s3.prefix) == (Path("/etc/ff/s3.key"), 183, "")


@pytest.mark.parametrize(
    ("endpoint", "extra", "fault"),
    [
        ("http://s3.example", "", "evidence.s3.endpoint: expected https://HOST"),
        ("https://me:secret@s3.example", "", "evidence.s3.endpoint: expected https://HOST"),
        ("https://s3.example/path", "", "evidence.s3.endpoint: expected https://HOST"),
        ("https://s3.example", 'replica = "/mnt/second"', "evidence: expected one of replica and s3"),
    ],
)
def test_buckets_that_are_refused(endpoint: str, extra: str, fault: str) -> None:
    (told,) = faults_of(BUCKET.format(endpoint=endpoint, extra=extra))
    assert told.startswith(fault)


def test_times_are_of_a_zone_that_there_is() -> None:
    assert config.parse(SMALLEST, base=Path()).site.timezone == "UTC"
    assert (
        config.parse(f'{SMALLEST}[site]\ntimezone = "Asia/Shanghai"\n', base=Path()).site.timezone == "Asia/Shanghai"
    )


@pytest.mark.parametrize("zone", ["Asia/Shanghay", "Asia", "", "../../etc/passwd", "/etc/localtime", "UTC+8"])
def test_a_zone_that_is_none_is_told(zone: str) -> None:
    (fault,) = faults_of(f'{SMALLEST}[site]\ntimezone = "{zone}"\n')
    assert fault.startswith("site.timezone: expected")
