"""Two persons at two machines and whoever keeps the site: from keys to an image that is published."""

import json
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fleet_server import config
from fleet_server.access.audit import Draft
from fleet_server.cli import release_commands, site_commands
from fleet_server.releasing import ReleaseEnds, Releasing
from fleet_server.site import releases_table
from tests.releases import IMAGE

RUNNER = CliRunner()
APP = typer.Typer()
site_commands.add_commands(APP)
release_commands.add_commands(APP)
PHRASE = "a long passphrase"


@dataclass
class Said:
    code: int
    out: str
    err: str


@dataclass
class Bureau:
    """A site, two persons' keys, the second under a passphrase, and an image."""

    directory: Path
    publics: list[str]

    def run(self, *arguments: str) -> Said:
        done = RUNNER.invoke(APP, ["releases", *arguments])
        return Said(done.exit_code, done.stdout, done.stderr)

    def site(self, *arguments: str) -> Said:
        return self.run(*arguments, "--dir", str(self.directory / "site"))

    def file(self, name: str, text: str) -> str:
        (self.directory / name).write_text(text)
        return str(self.directory / name)

    @property
    def image(self) -> str:
        path = self.directory / "dock.bin"
        path.write_bytes(IMAGE)
        return str(path)

    def signed(self, proposal: str, *more: str) -> str:
        """By both, one after the other."""
        for name, phrase in (("anna", []), ("ben", ["--passphrase-file", str(self.directory / "phrase")])):
            key = str(self.directory / f"{name}.key")
            said = self.run("sign", self.file("to-sign", proposal), "--key", key, "--yes", *phrase, *more)
            assert said.code == 0, said.err
            proposal = said.out
        return proposal

    @property
    def root(self) -> tuple[str, str]:
        """What a person is given of who may sign."""
        return "--root", str(self.directory / "site/server/releases/metadata/1.root.json")

    def propose(self, *more: str, version: str = "1.4.0", counter: str = "12") -> Said:
        said = ["--hw", "dock-2", "--kind", "mcu", "--version", version, "--counter", counter]
        return self.site("propose", self.image, *said, *more)

    def begin(self) -> Said:
        who = [part for each in self.publics for part in ("--root", each, "--targets", each)]
        proposed = self.site("propose-root", *who)
        assert proposed.code == 0, proposed.err
        return self.site("adopt", self.file("root.json", self.signed(proposed.out)))


@pytest.fixture
def bureau(tmp_path: Path) -> Bureau:
    assert RUNNER.invoke(APP, ["init", "--dir", str(tmp_path / "site")]).exit_code == 0
    (tmp_path / "phrase").write_text(PHRASE)
    made = Bureau(tmp_path, [])
    for name, how in (("anna", ["--no-passphrase"]), ("ben", ["--passphrase-file", str(tmp_path / "phrase")])):
        said = made.run("make-key", str(tmp_path / f"{name}.key"), *how)
        assert said.code == 0
        made.publics.append(said.out.strip())
        assert stat.S_IMODE((tmp_path / f"{name}.key").stat().st_mode) == 0o600
    return made


def test_from_keys_to_an_image_that_is_published(bureau: Bureau) -> None:
    begun = bureau.begin()
    assert begun.code == 0
    assert "[releases]" in begun.err
    proposed = bureau.propose()
    signed = bureau.signed(proposed.out, *bureau.root, "--image", bureau.image)
    adopted = bureau.site("adopt", bureau.file("signed.json", signed), "--image", bureau.image, "--json")
    assert adopted.code == 0, adopted.err
    assert json.loads(adopted.out)["role"] == "targets"
    listed = json.loads(bureau.site("list", "--json").out)
    (release,) = listed["releases"]
    assert release["path"] == "mcu/dock-2/1.4.0.bin"
    assert (release["hw"], release["kind"], release["counter"], release["image"]) == ("dock-2", "mcu", 12, True)
    assert listed["ends"].keys() == {"root", "targets", "snapshot", "timestamp"}
    assert "mcu/dock-2/1.4.0.bin: mcu dock-2 1.4.0, counter 12, 200000 bytes" in bureau.site("list").out


def test_the_server_runs_with_what_it_was_told_to_add(bureau: Bureau) -> None:
    bureau.begin()
    file = bureau.directory / "site/server/fleet-server.toml"
    file.write_text(file.read_text() + releases_table())
    table = config.load(file).releases
    assert table is not None
    releasing = Releasing(table, bureau.directory)
    before = releasing.releases.metadata("timestamp.json")
    assert before is None  # no list yet
    listed = bureau.signed(bureau.site("renew").out, *bureau.root)
    assert bureau.site("adopt", bureau.file("listed.json", listed)).code == 0
    (table.directory / "metadata/timestamp.json").unlink()
    releasing.refresh()
    assert releasing.releases.metadata("timestamp.json") is not None
    assert json.loads(releasing.releases.root())["signed"]["version"] == 1


def test_the_configuration_says_where_releases_are(bureau: Bureau) -> None:
    file = bureau.directory / "site/server/fleet-server.toml"
    table = releases_table().replace('"releases', '"../../elsewhere/releases')
    (bureau.directory / "elsewhere").mkdir()
    file.write_text(file.read_text() + table)
    bureau.begin()
    listed = bureau.run("list", "--dir", str(file.parent), "--json")
    assert json.loads(listed.out)["versions"]["root"] == 1
    assert {each.name for each in (bureau.directory / "elsewhere").iterdir()} == {"releases", "releases.key"}
    file.write_text(file.read_text() + "unknown = 1\n")
    assert "releases.unknown: unknown" in bureau.site("list").err


def test_what_was_published_is_recorded_once_with_who_signed(bureau: Bureau) -> None:
    bureau.begin()
    signed = bureau.signed(bureau.propose().out, *bureau.root)
    bureau.site("adopt", bureau.file("signed.json", signed), "--image", bureau.image)
    table = config.ReleasesTable(bureau.directory / "site/server/releases")
    facts: list[Draft] = []
    releasing = Releasing(table, bureau.directory)
    with pytest.raises(OSError, match="full"):
        releasing.note(_full)
    releasing.note(facts.append)
    releasing.note(facts.append)
    Releasing(table, bureau.directory).note(facts.append)
    root, listed = facts
    assert (root.action, root.subject, root.data["may_release"]) == ("releases.root", "1", "2")
    assert (listed.action, listed.data["released"]) == ("releases.list", "mcu/dock-2/1.4.0.bin")
    assert len(listed.data["signed_by"].split()) == 2


def test_the_soonest_end_is_measured_and_follows_what_is_published(bureau: Bureau) -> None:
    table = config.ReleasesTable(bureau.directory / "site/server/releases")
    ends = ReleaseEnds(table)
    assert ends.look() == (None, None)  # nobody may release here
    bureau.begin()
    root_ms, fresh_ms = ends.look()
    assert root_ms is not None
    assert fresh_ms is None  # no list yet
    listed = bureau.signed(bureau.site("renew", "--days", "40").out, *bureau.root)
    bureau.site("adopt", bureau.file("listed.json", listed))
    list_ms, fresh_ms = ends.look()
    assert list_ms is not None
    assert fresh_ms is not None
    assert fresh_ms < list_ms < root_ms
    assert ends.look() == (list_ms, fresh_ms)


def _full(_draft: Draft) -> None:
    raise OSError("the log is full")


def test_who_signs_is_told_what_changes(bureau: Bureau) -> None:
    bureau.begin()
    signed = bureau.signed(bureau.propose().out, *bureau.root)
    bureau.site("adopt", bureau.file("signed.json", signed), "--image", bureau.image)
    before = bureau.file("before.json", signed)
    (bureau.directory / "dock.bin").write_bytes(b"x")
    proposed = bureau.propose("--allow-downgrade-from", "12", version="1.3.9", counter="11")
    other = bureau.directory / "other.bin"
    other.write_bytes(b"other")
    key = str(bureau.directory / "anna.key")
    new = bureau.file("new.json", proposed.out)
    said = bureau.run("sign", new, "--key", key, *bureau.root, "--targets", before, "--image", str(other), "--yes")
    assert "+ mcu/dock-2/1.3.9.bin: mcu dock-2 1.3.9, counter 11, also over 12" in said.err
    assert "  mcu/dock-2/1.4.0.bin" in said.err
    assert "other.bin is none of them" in said.err
    assert "1 of 2 signatures" in said.err


def test_one_signature_publishes_nothing(bureau: Bureau) -> None:
    bureau.begin()
    proposed = bureau.file("new.json", bureau.propose().out)
    once = bureau.run("sign", proposed, "--key", str(bureau.directory / "anna.key"), *bureau.root, "--yes").out
    said = bureau.site("adopt", bureau.file("once.json", once), "--image", bureau.image)
    assert said.code == 1
    assert "expected 2 signatures of whom the root names, got 1" in said.err


def test_a_key_that_counts_for_nothing_signs_nothing(bureau: Bureau) -> None:
    bureau.begin()
    proposed = bureau.file("new.json", bureau.propose().out)
    bureau.run("make-key", str(bureau.directory / "eve.key"), "--no-passphrase")
    said = bureau.run("sign", proposed, "--key", str(bureau.directory / "eve.key"), *bureau.root, "--yes")
    assert (said.code, said.out) == (1, "")
    assert "your key is not one that may sign this" in said.err
    said = bureau.run("sign", proposed, "--key", str(bureau.directory / "anna.key"), "--yes")
    assert (said.code, said.out) == (1, "")
    assert "expected --root" in said.err


def test_who_says_no_signs_nothing(bureau: Bureau) -> None:
    bureau.begin()
    proposed = bureau.file("new.json", bureau.propose().out)
    key = str(bureau.directory / "anna.key")
    done = RUNNER.invoke(APP, ["releases", "sign", proposed, "--key", key, *bureau.root], input="n\n")
    assert (done.exit_code, done.stdout) == (1, "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["adopt", "{proposal}", "--image", "{other}"], "expected an image that is in the list"),
        (["withdraw", "mcu/dock-2/1.4.0.bin"], "expected one that is released"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_expected(
    bureau: Bureau, arguments: list[str], expected: str
) -> None:
    bureau.begin()
    names = {
        "proposal": bureau.file("signed.json", bureau.signed(bureau.propose().out, *bureau.root)),
        "other": bureau.file("other.bin", "other"),
    }
    said = bureau.site(*(each.format(**names) for each in arguments))
    assert said.code in {1, 2}
    assert expected in said.err


def test_a_key_is_never_overwritten(bureau: Bureau) -> None:
    said = bureau.run("make-key", str(bureau.directory / "anna.key"), "--no-passphrase")
    assert said.code == 2
    assert "never overwritten" in said.err


def test_no_root_no_release(bureau: Bureau) -> None:
    said = bureau.site("list")
    assert said.code == 2
    assert "first: fleet-server releases propose-root" in said.err
    alone = bureau.site("propose-root", "--root", bureau.publics[0], "--targets", bureau.publics[0])
    assert alone.code == 2
    assert "expected at least 2 keys of different persons" in alone.err
