"""Compiles the programs of this folder without libc: for the image and `make setup` ahead, otherwise when one is used.

`python build.py` compiles for this machine's architecture, and for the other one if its compiler is installed. It needs
nothing but Python and a C compiler, because it also runs before Knoll is installed. The result's name contains a digest
of what it was made from, so an outdated one is never used.
"""

import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
BIN = HERE / "bin"
ARM = "arm"
"""The first process of an armed container."""
COMPILERS = {"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"}
"""Architecture, as images name it, to the compiler that works on any machine."""
_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_FLAGS = (
    "-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-stack-protector", "-fno-pic",
    "-fno-asynchronous-unwind-tables", "-fno-tree-loop-distribute-patterns", "-nostdlib", "-static", "-no-pie", "-s",
    "-Wl,--build-id=none", "-Wl,-z,noseparate-code", "-Wl,-z,noexecstack",
)  # fmt: skip
_SECONDS = 60


class ProgramError(Exception):
    """A program is not built and cannot be compiled here."""


def program(name: str, architecture: str) -> bytes:
    """Return an executable, compiled now unless it is built.

    Args:
        name: of its source, without the suffix.
        architecture: `amd64` or `arm64`.

    Raises:
        ProgramError: it is not built, and there is no compiler or it fails.
    """
    built = BIN / _file_name(name, architecture)
    return built.read_bytes() if built.is_file() else _compiled(name, architecture)


def build(name: str, architecture: str, folder: Path = BIN) -> Path:
    """Compile a program into a folder, unless it is there. Raises: ProgramError."""
    target = folder / _file_name(name, architecture)
    if not target.is_file():
        content = _compiled(name, architecture)
        folder.mkdir(parents=True, exist_ok=True)
        for outdated in folder.glob(f"{name}-{architecture}-*"):
            outdated.unlink()
        target.write_bytes(content)
        target.chmod(0o755)
    return target


def compiler(architecture: str) -> str:
    """Return a compiler for an architecture; empty when there is none."""
    own = ("cc", "gcc") if architecture == _MACHINES.get(platform.machine()) else ()
    return next((name for name in (COMPILERS.get(architecture, ""), *own) if name and shutil.which(name)), "")


def _file_name(name: str, architecture: str) -> str:
    sources = b"".join((HERE / file).read_bytes() for file in ("start.h", f"{name}.c"))
    digest = hashlib.sha256(sources + " ".join(_FLAGS).encode()).hexdigest()[:12]
    return f"{name}-{architecture}-{digest}"


def _compiled(name: str, architecture: str) -> bytes:
    command = compiler(architecture)
    if not command:
        raise ProgramError(f"{name}.c is not compiled for {architecture}, and there is no C compiler: install gcc")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / name
        try:
            done = subprocess.run(
                [command, *_FLAGS, "-o", str(target), str(HERE / f"{name}.c")],
                capture_output=True, text=True, timeout=_SECONDS,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ProgramError(f"{command} cannot be run: {error}") from error
        if done.returncode:
            raise ProgramError(f"{command} cannot compile {name}.c: {done.stderr.strip()[:500]}")
        return target.read_bytes()


def main() -> None:
    own = _MACHINES.get(platform.machine(), "")
    for architecture in COMPILERS:
        if architecture != own and not compiler(architecture):
            continue
        try:
            build(ARM, architecture)
        except ProgramError as error:
            sys.exit(f"armed instances stay off: {error}")


if __name__ == "__main__":
    main()
