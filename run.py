#!/usr/bin/env python3
"""The command line: parse, choose a role, go. What a role does is not here; role functions import it after the fork and the patching.

The commands that talk to a server that runs are in `app/commands/`, which only they load: a server starts without it.
"""

import functools
import logging
import os
import socket
import sys
from argparse import SUPPRESS, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import replace

from app import ends, exposure, listeners, log, rundir, secret, settings, supervised
from app.address import Address
from app.child import EXIT_ORPHANED, EXIT_SETTINGS, READY, Child, hold_standard_files, live
from app.errors import SettingsError
from app.master import Master
from app.offspring import Role
from app.row import Row
from app.settings import Settings

DESCRIPTION = """\
Hands tasks off from WebSocket clients to a pool of worker processes.

commands:
  start     a gateway and local workers, under one master (the default); with --pool, a gateway alone, unless --workers is given too
  gateway   one gateway process; without --pool it uses the workers that run in the same data directory
  worker    one worker process; with --text fd:0 one of --workers that share a listener
  call      run one task on a server that runs, and wait for it: run.py call countdown start=3
  tasks     your tasks, or all that was said of one: run.py tasks
  functions what can be called: run.py functions
  status    what runs, and what each process is doing: run.py status
  connections  all connections of a server: run.py connections
  completion  make bash, zsh or fish complete all this: run.py completion bash

`run.py call --help` and so on say more of the last six.
Each setting is a flag, an environment variable, and a key in the settings file, in this order of precedence.
"""


def main(argv: Sequence[str]) -> int:
    """Do what the command line says; the exit code."""
    hold_standard_files()
    try:
        at = _place_of_command(argv)
        if COMPLETING in os.environ or (argv[at : at + 1] and argv[at] in CLIENT_COMMANDS):
            from app.commands.group import main as client

            return client([*argv[at : at + 1], *argv[:at], *argv[at + 1 :]])
        command, chosen = _parse(argv)
        chosen = replace(chosen, secret=secret.take_secret(chosen.secret_file, os.environ))
        _make_directories(chosen)
        return COMMANDS[command](chosen)
    except SettingsError as error:
        print(f"handoff: {log.one_line(error.message)}", file=sys.stderr)
        return EXIT_SETTINGS


def _place_of_command(argv: Sequence[str]) -> int:
    """Where the first word stands that is neither a flag nor the value of one: each setting's flag has a value."""
    at = 0
    while at < len(argv) and argv[at].startswith("-"):
        at += 1 if "=" in argv[at] else 2
    return at


def _parse(argv: Sequence[str]) -> tuple[str, Settings]:
    usage = "run.py [COMMAND] [--flag VALUE ...]"
    parser = settings.parser(prog="run.py", usage=usage, description=DESCRIPTION, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", default="start", help=SUPPRESS)
    flags, unknown = parser.parse_known_args(argv)
    if unknown:  # before the command is looked at, which may be the value of an unknown flag
        raise SettingsError(f"nothing is called {unknown[0]!r}; --help lists flags and commands")
    if flags.command not in COMMANDS:
        raise SettingsError(f"no command is called {flags.command!r}; there are {', '.join([*COMMANDS, *CLIENT_COMMANDS])}")
    return flags.command, settings.from_flags(flags, os.environ)


def start(chosen: Settings) -> int:
    """The gateway and the workers under a master; stays until all of them have ended."""
    supervised.follow(os.environ)
    log.configure("master", chosen.log_level, chosen.log_format, chosen.log_file)
    lock = rundir.lock(chosen.run_dir)
    ends.sweep(chosen.run_dir)
    roles = [*_workers(chosen), Role("gateway", 1, listeners.listen(chosen.ws, "--ws"), functools.partial(run_gateway, chosen))]
    addresses = {role.name: _address_of(chosen, role.name, role.listener) for role in roles}
    _warn(chosen, addresses)
    try:
        announce = functools.partial(_announce, addresses)
        return Master(roles, chosen.graceful, chosen.log_level, announce, chosen.run_dir, Row(chosen.run_dir)).run()
    finally:
        for role in roles:
            role.listener.close()
            listeners.forget(addresses[role.name])
        os.close(lock)


def _workers(chosen: Settings) -> list[Role]:
    if chosen.pool and "workers" not in chosen.given:
        return []
    run = functools.partial(run_worker, chosen, chosen.workers)
    return [Role("worker", chosen.workers, listeners.listen(chosen.text, "--text"), run)]


def gateway(chosen: Settings) -> int:
    """One gateway, in this very process."""
    name = chosen.name or "gateway"
    listener = _alone(chosen, name, chosen.ws, "--ws")
    addresses = {"gateway": _address_of(chosen, "gateway", listener)}
    _warn(chosen, addresses)
    live(Child(name, listener, functools.partial(_say, addresses)), functools.partial(run_gateway, chosen), chosen.log_level)


def worker(chosen: Settings) -> int:
    """One worker, in this very process."""
    name = chosen.name or f"worker-{os.getpid()}"
    listener = _alone(chosen, name, chosen.text, "--text")
    addresses = {"worker": _address_of(chosen, "worker", listener)}
    _warn(chosen, addresses)
    siblings = chosen.workers if chosen.text.fd >= 0 and "workers" in chosen.given else 1
    live(Child(name, listener, functools.partial(_say, addresses)), functools.partial(_run_alone, chosen, siblings), chosen.log_level)


def _run_alone(chosen: Settings, siblings: int, child: Child) -> None:
    try:
        run_worker(chosen, siblings, child)
    finally:
        supervised.end_what_is_left(os.environ)


def _alone(chosen: Settings, name: str, address: Address, flag: str) -> socket.socket:
    """What a process without a master does for itself, before it listens; its listener."""
    supervised.follow(os.environ)
    log.configure(name, chosen.log_level, chosen.log_format, chosen.log_file)
    ends.sweep(chosen.run_dir)
    return listeners.listen(address, flag)


def run_gateway(chosen: Settings, child: Child) -> None:
    """The role of the gateway: returns when it has ended."""
    _patch(child)
    from app.gateway.server import serve

    serve(chosen, child.listener, child.ready)


def run_worker(chosen: Settings, siblings: int, child: Child) -> None:
    """The role of a worker, one of so many: returns when it has ended."""
    _patch(child)
    if chosen.smtp_url:
        from workers.smtp_url import read_smtp_url

        read_smtp_url(chosen.smtp_url).tls()  # so that one that cannot be used ends the start
        os.environ["HANDOFF_SMTP_URL"] = chosen.smtp_url  # tasks have the environment, in processes of their own too
    from workers.server import serve

    serve(chosen, child, siblings)


def _patch(child: Child) -> None:
    """Make blocking code cooperative, before any of it is imported; find modules where we were started; leave when the master has gone."""
    from gevent import get_hub, monkey

    monkey.patch_all()
    sys.path.append(os.getcwd())
    if child.lifeline >= 0:
        child.watcher = get_hub().loop.io(child.lifeline, 1, ref=False)
        child.watcher.start(os._exit, EXIT_ORPHANED)


def _address_of(chosen: Settings, role: str, listener: socket.socket) -> Address:
    return listeners.address_of(listener)._replace(tls=role == "worker" and chosen.text.tls)


def _warn(chosen: Settings, addresses: dict[str, Address]) -> None:
    """Say what is dangerous; raises `SettingsError` for what is too dangerous."""
    logger = logging.getLogger(__name__)
    warnings = exposure.check(chosen, addresses)
    if os.geteuid() == 0:
        logger.warning("running-as-root: tasks may do anything on this machine; start it as a user of its own")
    for warning in warnings:
        logger.warning("open-to-others: %s", warning)


def _say(addresses: dict[str, Address], said: bytes) -> None:
    """There is no master to hear it, but somebody who started us."""
    if said == READY:
        _announce(addresses)


def _announce(addresses: dict[str, Address]) -> None:
    lines = []
    if address := addresses.get("gateway"):
        lines.append(f"gateway listening on {address}" if address.path else f"gateway listening on ws://{address}/ws")
    if address := addresses.get("worker"):
        lines.append(f"workers listening on {address}" if address.path or address.tls else f"workers listening on text://{address}")
    if (address := addresses.get("gateway")) and not address.path:
        lines.append(f"page at http://{address}/")
    print(*lines, "ready", sep="\n", flush=True)


def _make_directories(chosen: Settings) -> None:
    for path in (chosen.data_dir, chosen.run_dir):
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"--data-dir: cannot make {path}: {error.strerror}") from None


COMMANDS = {"start": start, "gateway": gateway, "worker": worker}
CLIENT_COMMANDS = ("call", "tasks", "functions", "status", "connections", "completion")
COMPLETING = "_RUN_PY_COMPLETE"

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
