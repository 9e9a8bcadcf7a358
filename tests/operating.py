"""A document that is followed: what stands in its blocks is written and typed, section by section, in a directory and with ports of the
test's own."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from tests.documents import commands_of, pattern
from tests.harness import ROOT, wait_until

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
LOOKS = (
    "curl ",
    "grep ",
    "supervisorctl -c supervisord.conf status",
    "openssl s_client",
    "./run.py status",
    "./run.py connections",
    "./run.py call --ws-ca cert.pem --token-file ",
)
"""Commands that change nothing: typed again until they say what they should, as whoever reads the document would."""
PATIENCE = 10.0
"""Seconds for that."""

T = TypeVar("T")


class Block(NamedTuple):
    """`info` is what stands behind the fence: `console`, or a language and `file=NAME`."""

    info: str
    text: str


def sections(document: str) -> dict[str, list[Block]]:
    """The blocks under each heading that has any."""
    found = {}
    for part in re.split(r"^## ", document, flags=re.MULTILINE):
        blocks = [Block(*found) for found in re.findall(r"^```([^\n]*)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)]
        if blocks:
            found[part.partition("\n")[0]] = blocks
    return found


def covers(*headings: str) -> Callable[[T], T]:
    """Of a test: it follows these sections."""

    def mark(test: T) -> T:
        test.headings = headings  # type: ignore[attr-defined]
        return test

    return mark


class Reader:
    """Follows a document; `elsewhere` are the commands that are not typed."""

    def __init__(self, document: str, elsewhere: frozenset[str] = frozenset()) -> None:
        self.sections = sections(document)
        self.elsewhere = elsewhere
        self.followed: list[str] = []

    def follow(self, heading: str, place: Path, names: Mapping[str, str], environ: Mapping[str, str]) -> None:
        """Write and type all of a section, with `names` for words of the document that are others in this place. Fails the test at the
        first command that says something else, or ends otherwise."""
        quiet = {name: value for name, value in os.environ.items() if not name.startswith("HANDOFF_") and name != "SMTP_URL"}
        self.followed.append(heading)
        for block in self.sections[heading]:
            text = _renamed(block.text, names)
            language, _, name = block.info.partition(" file=")
            if language == "console":
                for command, output in commands_of(f"```console\n{text}```\n"):
                    if command not in self.elsewhere:
                        _type(command, output, place, quiet | {"PATH": PATH, "LC_ALL": "C.UTF-8", **environ})
            else:
                assert name, f"a block of {heading!r} is neither a command nor a file"
                (place / name).parent.mkdir(exist_ok=True)
                (place / name).write_text(text)


def _renamed(text: str, names: Mapping[str, str]) -> str:
    """All names at once, the longest first."""
    if not names:
        return text
    either = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.sub(either, lambda found: names[found.group()], text)


def _type(command: str, output: str, place: Path, environ: Mapping[str, str]) -> None:
    told, code = re.subn(r"^exit code (\d+)\n", "", output, flags=re.MULTILINE), re.search(r"^exit code (\d+)$", output, re.MULTILINE)
    wanted = int(code.group(1)) if code else 0
    said: list[str] = []

    def as_it_says() -> bool:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=place,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        said[:] = [f"$ {command}", f"{done.stdout}{done.stderr}exit code {done.returncode}"]
        heard = re.fullmatch(pattern(told[0]), done.stdout + done.stderr) or not told[0]
        return done.returncode == wanted and bool(heard)

    wait_until(as_it_says, PATIENCE if command.startswith(LOOKS) else 0, lambda: "\n".join(said))


def lines_outside(document: str) -> Iterator[str]:
    """Lines of code that stand in no fenced block, and so would not be seen."""
    fenced = re.sub(r"^```.*?^```$", "", document, flags=re.MULTILINE | re.DOTALL)
    return (line for line in fenced.splitlines() if line.startswith(("    ", "\t")))


def lay_out(place: Path) -> Path:
    """A directory that is as a fresh clone, for what the document does in it."""
    (place / "run.py").symlink_to(ROOT / "run.py")
    (place / "var").mkdir(mode=0o700)
    (place / "supervisord.conf").write_text((ROOT / "supervisord.conf").read_text())
    (place / "supervisord.d").mkdir()
    for path in (ROOT / "supervisord.d").iterdir():
        (place / "supervisord.d" / path.name).write_text(path.read_text())
    return place
