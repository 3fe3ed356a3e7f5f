"""What ``fleet-server releases`` says: to who signs, to who keeps the site, and to programs."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec
from tuf.api.metadata import Metadata, Root, Targets

from broker_config.text import shown
from fleet_server.access import countersigning
from fleet_server.releases import roots, targets
from fleet_server.releases.publishing import Published, Standing
from fleet_server.releases.targets import Release

DAY = "%Y-%m-%d"


class Adopted(NamedTuple):
    """What was published last, and all that is."""

    role: str
    published: Published


def told(
    proposed: Metadata[Root] | Metadata[Targets],
    root: Metadata[Root] | None,
    before: Metadata[Targets] | None,
    images: Mapping[str, tuple[str, int]],
) -> tuple[str, ...]:
    """All of what is signed, in lines. *images*: file -> digest and size. Raises ReleaseError."""
    head = f"{proposed.signed.type} version {proposed.signed.version}, good until {proposed.signed.expires:{DAY}}"
    if isinstance(proposed.signed, Root):
        return head, *_told_root(proposed.signed, None if root is None else root.signed)
    return head, *_told_targets(proposed.signed, None if before is None else before.signed, images)


def _told_root(root: Root, before: Root | None) -> Iterator[str]:
    now, was = roots.signers_of(root), None if before is None else roots.signers_of(before)
    yield f"  {now.threshold} of each have to sign"
    for role, keys, old in (
        ("may change this", now.root, None if was is None else was.root),
        ("may release", now.targets, None if was is None else was.targets),
        ("server", frozenset({now.online}), None if was is None else frozenset({was.online})),
    ):
        for key in sorted(keys | (old or frozenset())):
            yield f"  {_mark(key in keys, old is None or key in old)}{role}: {countersigning.public_text(key)}"


def _told_targets(listed: Targets, before: Targets | None, images: Mapping[str, tuple[str, int]]) -> Iterator[str]:
    now = {each.path: each for each in targets.releases(listed)}
    was = now if before is None else {each.path: each for each in targets.releases(before)}
    for path in sorted(now.keys() | was.keys()):
        changed = path in now and path in was and now[path] != was[path]
        mark = "! another image of the same name: " if changed else _mark(path in now, path in was)
        yield f"  {mark}{_line(now.get(path) or was[path])}"
    digests = {each.sha256: each.path for each in now.values()}
    for file, (digest, _) in images.items():
        yield f"  {shown(file)} is {digests.get(digest, 'none of them')}"


def _mark(is_there: bool, was_there: bool) -> str:
    return "  " if is_there and was_there else "+ " if is_there else "- "


def _line(release: Release) -> str:
    custom = release.custom
    older = f", also over {', '.join(map(str, custom.allow_downgrade_from))}" if custom.allow_downgrade_from else ""
    return (
        f"{release.path}: {custom.kind} {custom.hw} {custom.version}, counter {custom.counter}{older}, "
        f"{release.size_bytes} bytes, sha256 {release.sha256}"
    )


def adopted(done: Adopted) -> str:
    """For people."""
    versions = ", ".join(f"{role} {version}" for role, version in done.published._asdict().items() if version)
    return f"published: {versions}"


def listed(standing: Standing) -> str:
    """For people."""
    lines = [
        f"{_line(each)}{'' if there else '; ITS IMAGE IS NOT HERE: adopt the list again with --image'}"
        for each, there in standing.releases
    ]
    lines += [f"{role}: good until {end:{DAY}}" for role, end in standing.ends.items()]
    if standing.unsigned:
        lines.append("targets: who signed them may not any more; next: fleet-server releases renew")
    return "\n".join(lines)


def listed_json(standing: Standing) -> str:
    """For programs."""
    return as_json(
        {
            "versions": standing.published._asdict(),
            "ends": {role: f"{end:%Y-%m-%dT%H:%M:%SZ}" for role, end in standing.ends.items()},
            "unsigned": standing.unsigned,
            "releases": [
                {
                    "path": each.path,
                    "sha256": each.sha256,
                    "size_bytes": each.size_bytes,
                    "image": there,
                    **msgspec.to_builtins(each.custom),
                }
                for each, there in standing.releases
            ],
        }
    )


def as_json(value: object) -> str:
    """Indented; of what programs are told."""
    if isinstance(value, Adopted):
        value = {"role": value.role, "versions": value.published._asdict()}
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
