"""What the benchmark needs before it can run: the C programs, compiled where they are older than their source, and the floor's packages."""

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"
FLOOR = HERE / "floor"

_FLAGS = ("-std=gnu11", "-Wall", "-Wextra", "-O2")
_SOURCES = {
    "load": ("load.c", "load/*.c", "load/*.h"),
    "sink": ("sink.c",),
}


class Missing(Exception):
    """Something that the benchmark needs is not on this machine; the message says how to get it."""


def program(name: str) -> Path:
    """The path of a C program (`load` or `sink`), compiled where needed. Raises `Missing` without a compiler, or with its complaint."""
    built = BUILD / name
    sources = [path for pattern in _SOURCES[name] for path in sorted(HERE.glob(pattern))]
    if built.exists() and built.stat().st_mtime >= max(path.stat().st_mtime for path in sources):
        return built
    compiler = shutil.which("cc")
    if compiler is None:
        raise Missing("no C compiler: install gcc (Debian: apt-get install gcc libc6-dev)")
    BUILD.mkdir(exist_ok=True)
    fresh = built.with_suffix(".new")  # renamed when whole, so that a broken build leaves nothing that looks finished
    command = [compiler, *_FLAGS, "-o", str(fresh), *(str(path) for path in sources if path.suffix == ".c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"{name} does not compile:\n{done.stderr}")
    fresh.replace(built)
    return built


def floor_command() -> list[str]:
    """The command that starts the floor server. Raises `Missing` without node, or without its package."""
    node = shutil.which("node")
    if node is None:
        raise Missing("no node: install it (Debian: apt-get install nodejs npm)")
    if not (FLOOR / "node_modules" / "ws").is_dir():
        raise Missing("npm's ws is not installed: run npm ci --prefix bench/floor")
    return [node, str(FLOOR / "echo.js")]
