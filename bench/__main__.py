"""The benchmark's command line: `python bench`, and a section or `all`. Chooses sections, prints them, writes them to a file."""

import argparse
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import durability, mails, memory, programs, soak, throughput
from bench.build import Missing
from bench.report import Section

SECTIONS: dict[str, Callable[[str, float, int], Section]] = {
    "throughput": throughput.measure,
    "durability": durability.measure,
    "mails": mails.measure,
    "memory": memory.measure,
    "soak": soak.measure,
}
SHORT = [name for name in SECTIONS if name != "soak"]
"""Those that `all` means."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="What a task costs the server, beside the least that a server can cost.")
    parser.add_argument("section", nargs="?", default="all", choices=[*SECTIONS, "all"])
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each throughput run is measured (default 4)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is repeated (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every raw result there as well")
    parser.add_argument("--server", default=programs.python_server(), metavar="COMMAND", help="what starts the server (default: run.py)")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.seconds <= 0:
        parser.error("--rounds and --seconds are at least 1 and more than 0")
    return arguments


def _raise_file_limit() -> None:
    """Every connection is a descriptor in two processes, which inherit this."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    """Runs the sections asked for. 0 whether targets are met or not; 1 where something went wrong."""
    arguments = _arguments()
    _raise_file_limit()
    done: dict[str, Section] = {}
    try:
        for name in SHORT if arguments.section == "all" else [arguments.section]:
            done[name] = SECTIONS[name](arguments.server, arguments.seconds, arguments.rounds)
            print(done[name], flush=True)
    except (programs.Broken, Missing) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        arguments.json.write_text(json.dumps({name: section.as_json() for name, section in done.items()}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
