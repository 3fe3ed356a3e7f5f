"""What a child process of ours may take at most, set by itself before it reads what a stranger wrote."""

import resource


def bound_myself(
    *, memory_bytes: int, cpu_s: int | None = None, files: int | None = None, file_bytes: int | None = None
) -> None:
    """*memory_bytes*: of address space; *files*: open at once; *file_bytes*: of one file. No core is ever written."""
    for what, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        if most is not None:
            resource.setrlimit(what, (most, most))
