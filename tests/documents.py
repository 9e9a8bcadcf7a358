"""What stands in the documents and can be tried out: whole files, and commands with what they print."""

import re
from collections.abc import Iterator


def files_of(document: str) -> list[tuple[str, str]]:
    """Each block that is a whole file, as its name and its text."""
    return re.findall(r"^```\w+ file=(\S+)\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)


def commands_of(document: str) -> Iterator[tuple[str, str]]:
    """Each command with the output that it is said to have."""
    for block in re.findall(r"^```console\n(.*?)^```$", document, re.MULTILINE | re.DOTALL):
        for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = example.partition("\n")
            yield command, output


def pattern(output: str) -> str:
    """`…` stands for anything within a line, or for any lines where it has one for itself."""
    lines = (r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*?") + r"\n" for line in output.splitlines())
    return "".join(lines)
