"""``python -m firmware_bridge.peripherals.recorder``: a recorder that makes real files, for the demo and for tests.

With ffmpeg, a recording is a test picture with a clock in it: fragmented MP4 segments, each readable for itself.
Without it there is no video, which is said, and ``--logs`` makes lines of text instead. Files come as the agent takes
them: whole, by a rename; ``RECORDING.open`` before, ``RECORDING.close`` behind. Nothing new is begun while ``STOP``
lies there; on SIGTERM the running recording is closed.

Exit codes: 0 done, 1 there is no ffmpeg or it failed, 2 wrong usage.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

POLL_S: Final = 0.1
STOP_S: Final = 10.0
LOG_LINES: Final = 200
SEGMENT_NUMBERS: Final = "_%05d.mp4"


def _put(folder: Path, name: str, data: bytes) -> None:
    """A file that is there whole or not at all."""
    part = folder / f".{name}.part"
    part.write_bytes(data)
    part.rename(folder / name)


def _mark(folder: Path, name: str, **what: str) -> None:
    _put(folder, name, json.dumps(what).encode())


def ffmpeg_command(ffmpeg: str, work: Path, *, segment_s: float, seconds: float, size: str, rate: str) -> list[str]:
    """Writes segments 00001 and on into *work* at the speed of life, and a line into ``done`` when each is closed."""
    return [
        ffmpeg, "-hide_banner", "-loglevel", "error", "-nostdin", "-re",
        "-f", "lavfi", "-i", f"testsrc=size={size}:rate=10", "-t", str(seconds),
        "-c:v", "mpeg4", "-b:v", rate, "-g", "10", "-pix_fmt", "yuv420p",
        "-f", "segment", "-segment_time", str(segment_s), "-segment_start_number", "1", "-reset_timestamps", "1",
        "-segment_format", "mp4", "-segment_format_options", "movflags=frag_keyframe+empty_moov+default_base_moof",
        "-segment_list", str(work / "done"), "-segment_list_type", "flat", str(work / ("s" + SEGMENT_NUMBERS)),
    ]  # fmt: skip


def record(
    folder: Path,
    recording: str,
    *,
    seconds: float,
    segment_s: float,
    stopping: threading.Event,
    size: str = "320x240",
    rate: str = "200k",
) -> int:
    """Make one recording, until its time is over or it is to stop; returns its segments.

    Raises OSError, RuntimeError: ffmpeg is not there, or failed.
    """
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise RuntimeError("no ffmpeg here, so no video: install it, or use --logs")
    work = folder / f".{recording}.work"
    work.mkdir()
    try:
        command = ffmpeg_command(ffmpeg, work, segment_s=segment_s, seconds=seconds, size=size, rate=rate)
        _mark(folder, f"{recording}.open", trigger="demo")
        # a session of its own: whoever stops us stops us, and we have it close the last segment
        child = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)  # noqa: S603  # our own words
        segments, ended = 0, False
        try:
            while not ended:
                ended = child.poll() is not None
                segments = _hand_over(folder, work, recording, segments)
                if stopping.is_set() and not ended:
                    child.terminate()
                    child.wait(STOP_S)
                elif not ended:
                    stopping.wait(POLL_S)
        finally:
            child.terminate()
            _, told = child.communicate(timeout=STOP_S)
        well = child.returncode == 0 or stopping.is_set()
        _mark(folder, f"{recording}.close", reason="stopped" if well else "ffmpeg failed")
        if not well:
            raise RuntimeError(f"ffmpeg ended with {child.returncode}: {told.decode(errors='replace')[-200:]}")
        return segments
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _hand_over(folder: Path, work: Path, recording: str, segments: int) -> int:
    """Give closed segments their names; returns how many there are by now."""
    done = work / "done"
    names = done.read_text(encoding="utf-8").splitlines() if done.exists() else []
    for name in names[segments:]:
        segments += 1
        target = f"{recording}{SEGMENT_NUMBERS % segments}"
        (work / Path(name).name).rename(folder / target)
    return segments


def write_log(folder: Path, name: str) -> None:
    """A file of text."""
    lines = (f"{time.time():.3f} {name} line {n}: all is played\n" for n in range(LOG_LINES))
    _put(folder, f"{name}.log", "".join(lines).encode())


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring for the exit codes."""
    parser = argparse.ArgumentParser(
        prog="python -m firmware_bridge.peripherals.recorder",
        description="Records a test picture with ffmpeg, or writes logs, into a folder that an agent uploads.",
        epilog="example: python -m firmware_bridge.peripherals.recorder --folder state/files/recordings "
        "--recordings 2 --seconds 6 --segment-s 2",
    )
    parser.add_argument("--folder", type=Path, required=True, metavar="DIR")
    parser.add_argument("--recordings", type=int, default=1, metavar="N", help="one after the other (default 1)")
    parser.add_argument("--seconds", type=float, default=6.0, metavar="S", help="of each; between logs (default 6)")
    parser.add_argument("--segment-s", type=float, default=2.0, metavar="S", help="of each segment (default 2)")
    parser.add_argument("--prefix", default="rec", metavar="NAME", help="recordings are NAME-TIME-N (default rec)")
    parser.add_argument("--logs", action="store_true", help="logs instead of video")
    arguments = parser.parse_args(argv)
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    began = int(time.time())
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    for n in range(1, arguments.recordings + 1):
        if (folder / "STOP").exists():
            print("recorder: the device says stop, nothing more is recorded", file=sys.stderr)
            return 0
        if stopping.is_set():
            return 0
        name = f"{arguments.prefix}-{began}-{n}"
        if arguments.logs:
            write_log(folder, name)
            print(name, flush=True)
            stopping.wait(arguments.seconds)
            continue
        try:
            made = record(folder, name, seconds=arguments.seconds, segment_s=arguments.segment_s, stopping=stopping)
        except (OSError, RuntimeError) as error:
            print(f"recorder: {error}", file=sys.stderr)
            return 1
        print(f"{name}: {made} segments", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
