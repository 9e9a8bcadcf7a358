#!/usr/bin/env python3
"""The command line: parse, choose a role, go. What a role does is not here; role functions import it after the fork and the patching.

The commands that talk to a server that runs are in `app/commands/`, which only they load: a server starts without it.
"""

import functools
import logging
import os
import signal
import socket
import sys
from argparse import SUPPRESS, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence

from app import daemon, ends, listeners, log, orders, privileges, rundir, settings, supervised
from app.address import Address
from app.child import EXIT_NOT_RUNNING, EXIT_ORPHANED, EXIT_SETTINGS, READY, Child, hold_standard_files, live
from app.errors import SettingsError
from app.master import Master
from app.offspring import Role
from app.privileges import Identity
from app.settings import Settings

DESCRIPTION = """\
Hands tasks off from WebSocket clients to a pool of worker processes.

commands:
  start     a gateway and local workers, under one master (the default); with --pool, a gateway alone, unless --workers is given too;
            -d: in the background, once it is ready
  stop      end it, and what runs in it, at once; -g: as soon as its tasks have ended, or --graceful is over
  restart   stop (with -g as above), then start (with -d as above)
  reload    load changed code of tasks and handlers, beside what runs; settings stay as they are
  gateway   one gateway process; without --pool it uses the workers that run in the same data directory
  worker    one worker process; with --text fd:0 one of --workers that share a listener
  call      run one task on a server that runs, and wait for it: run.py call countdown start=3
  tasks     your tasks, or all that was said of one: run.py tasks
  functions what can be called: run.py functions
  completion  make bash, zsh or fish complete all this: run.py completion bash

`run.py call --help` and so on say more of the last four.
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
        flags, chosen = _parse(argv)
        os.umask(chosen.umask)
        return COMMANDS[flags.command](chosen, flags)
    except SettingsError as error:
        print(f"handoff: {log.one_line(error.message)}", file=sys.stderr)
        return EXIT_SETTINGS


def _place_of_command(argv: Sequence[str]) -> int:
    """Where the first word stands that is neither a flag nor the value of one: each setting's flag has a value."""
    at = 0
    while at < len(argv) and argv[at].startswith("-"):
        at += 1 if "=" in argv[at] or argv[at] in SWITCHES else 2
    return at


def _parse(argv: Sequence[str]) -> tuple[Namespace, Settings]:
    usage = "run.py [COMMAND] [--flag VALUE ...]"
    parser = settings.parser(prog="run.py", usage=usage, description=DESCRIPTION, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", default="start", help=SUPPRESS)
    parser.add_argument(
        *SWITCHES[:2], action="store_true", help="start, restart: in the background; what is said goes to handoff.log in data-dir"
    )
    parser.add_argument(*SWITCHES[2:], action="store_true", help="stop, restart: let tasks end first")
    flags, unknown = parser.parse_known_args(argv)
    if unknown:  # before the command is looked at, which may be the value of an unknown flag
        raise SettingsError(f"nothing is called {unknown[0]!r}; --help lists flags and commands")
    if flags.command not in COMMANDS:
        raise SettingsError(f"no command is called {flags.command!r}; there are {', '.join([*COMMANDS, *CLIENT_COMMANDS])}")
    for name, commands in (("daemon", ("start", "restart")), ("gently", ("stop", "restart"))):
        if getattr(flags, name) and flags.command not in commands:
            raise SettingsError(f"--{name}: goes with {' and '.join(commands)} alone")
    return flags, settings.from_flags(flags, os.environ)


def start(chosen: Settings, flags: Namespace) -> int:
    """The gateway and the workers under a master; stays until all of them have ended, or with -d until they serve."""
    identity = _identity(chosen)
    if not flags.daemon:
        return _start(chosen, identity, _print)
    return daemon.start(functools.partial(_start, chosen, identity), chosen.data_dir / daemon.LOG_NAME, identity)


def _start(chosen: Settings, identity: Identity, say: Callable[[str], None], private: tuple[int, ...] = ()) -> int:
    supervised.follow(os.environ)
    log.configure("master", chosen.log_level)
    try:
        with identity.acting():
            lock = rundir.lock(chosen.run_dir)
        return _lead(chosen, identity, say, (*private, lock))
    except SettingsError as error:  # in the background, nobody else is left to say it
        print(f"handoff: {log.one_line(error.message)}", file=sys.stderr)
        return EXIT_SETTINGS


def _lead(chosen: Settings, identity: Identity, say: Callable[[str], None], private: tuple[int, ...]) -> int:
    roles = [*_workers(chosen), Role("gateway", 1, listeners.listen(chosen.ws, "--ws"), functools.partial(run_gateway, chosen))]
    addresses = {role.name: listeners.address_of(role.listener) for role in roles}
    forget_pid = orders.write_pid(chosen.pid_file or chosen.run_dir / "master.pid", identity)
    try:
        _become(identity, chosen, addresses)
        _entitle("master", str(chosen.data_dir))
        ends.sweep(chosen.run_dir)
        ready = functools.partial(_announce, addresses, say)
        return Master(roles, chosen.graceful, chosen.log_level, ready, chosen.run_dir, private).run()
    finally:
        forget_pid()
        for role in roles:
            role.listener.close()
            listeners.forget(addresses[role.name])


def stop(chosen: Settings, flags: Namespace) -> int:
    """End the server that runs with this data directory."""
    patience = orders.FAST_PATIENCE + (chosen.graceful if flags.gently else 0)
    return orders.stop(chosen.run_dir, patience, signal.SIGTERM if flags.gently else signal.SIGINT)


def restart(chosen: Settings, flags: Namespace) -> int:
    """The same, where one runs; then start."""
    ended = stop(chosen, flags) if orders.find(chosen.run_dir) else 0
    return start(chosen, flags) if ended in (0, EXIT_NOT_RUNNING) else ended


def reload(chosen: Settings, _flags: Namespace) -> int:
    """Have changed code loaded."""
    return orders.reload(chosen.run_dir)


def _identity(chosen: Settings) -> Identity:
    """Who is to run; what they write to is there afterwards."""
    found = privileges.identity(chosen.user, chosen.group)
    for path in (chosen.data_dir, chosen.run_dir):
        try:
            found.make_directory(path)
        except OSError as error:
            raise SettingsError(f"--data-dir: cannot make {path}: {error.strerror}") from None
    found.check(chosen.data_dir)
    return found


def _become(identity: Identity, chosen: Settings, addresses: dict[str, Address]) -> None:
    """From here on nothing needs root: what only root may listen on is listened on."""
    for address in addresses.values():
        if address.path and identity.name:
            os.chown(address.path, identity.uid, identity.gid, follow_symlinks=False)
    identity.become()
    if identity.name:
        supervised.follow(os.environ)  # once more: the kernel forgets it where the user changes
    _warn(addresses)


def _workers(chosen: Settings) -> list[Role]:
    if chosen.pool and "workers" not in chosen.given:
        return []
    run = functools.partial(run_worker, chosen, chosen.workers)
    return [Role("worker", chosen.workers, listeners.listen(chosen.text, "--text"), run)]


def gateway(chosen: Settings, _flags: Namespace) -> int:
    """One gateway, in this very process."""
    name = chosen.name or "gateway"
    listener, addresses = _alone(chosen, name, "gateway", chosen.ws, "--ws")
    live(Child(name, listener, functools.partial(_say, addresses)), functools.partial(run_gateway, chosen), chosen.log_level)


def worker(chosen: Settings, _flags: Namespace) -> int:
    """One worker, in this very process."""
    name = chosen.name or f"worker-{os.getpid()}"
    listener, addresses = _alone(chosen, name, "worker", chosen.text, "--text")
    siblings = chosen.workers if chosen.text.fd >= 0 and "workers" in chosen.given else 1
    live(Child(name, listener, functools.partial(_say, addresses)), functools.partial(_run_alone, chosen, siblings), chosen.log_level)


def _run_alone(chosen: Settings, siblings: int, child: Child) -> None:
    try:
        run_worker(chosen, siblings, child)
    finally:
        supervised.end_what_is_left(os.environ)


def _alone(chosen: Settings, name: str, role: str, address: Address, flag: str) -> tuple[socket.socket, dict[str, Address]]:
    """What a process without a master does for itself, before it runs; its listener, and where that is."""
    supervised.follow(os.environ)
    identity = _identity(chosen)
    log.configure(name, chosen.log_level)
    listener = listeners.listen(address, flag)
    addresses = {role: listeners.address_of(listener)}
    _become(identity, chosen, addresses)
    ends.sweep(chosen.run_dir)
    return listener, addresses


def run_gateway(chosen: Settings, child: Child) -> None:
    """The role of the gateway: returns when it has ended."""
    _patch(child)
    from app.gateway.server import serve

    serve(chosen, child)


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
    _entitle(child.name)
    sys.path.append(os.getcwd())
    if child.lifeline >= 0:
        child.watcher = get_hub().loop.io(child.lifeline, 1, ref=False)
        child.watcher.start(os._exit, EXIT_ORPHANED)


def _entitle(name: str, about: str = "") -> None:
    """What ps and top show: as `handoff: worker-1`. The name of the process itself stays as it is."""
    from setproctitle import getthreadtitle, setproctitle, setthreadtitle

    before = getthreadtitle()
    setproctitle(f"handoff: {name} {about}".rstrip())
    setthreadtitle(before)


def _warn(addresses: dict[str, Address]) -> None:
    logger = logging.getLogger(__name__)
    if os.geteuid() == 0:
        logger.warning("running as root: tasks may do anything on this machine; start it as a user of its own")
    for role, address in addresses.items():
        if not address.is_loopback:
            logger.warning("open-to-others: the %s listens on %s, and takes any task from whoever can connect to it", role, address)


def _say(addresses: dict[str, Address], said: bytes) -> None:
    """There is no master to hear it, but somebody who started us."""
    if said == READY:
        _announce(addresses, _print)


def _announce(addresses: dict[str, Address], say: Callable[[str], None]) -> None:
    lines = []
    if address := addresses.get("gateway"):
        lines.append(f"gateway listening on {address}" if address.path else f"gateway listening on ws://{address}/ws")
    if address := addresses.get("worker"):
        lines.append(f"workers listening on {address}" if address.path else f"workers listening on text://{address}")
    if (address := addresses.get("gateway")) and not address.path:
        lines.append(f"page at http://{address}/")
    say("\n".join([*lines, "ready\n"]))


def _print(text: str) -> None:
    print(text, end="", flush=True)


COMMANDS = {"start": start, "gateway": gateway, "worker": worker, "stop": stop, "restart": restart, "reload": reload}
SWITCHES = ("-d", "--daemon", "-g", "--gently")
"""The flags without a value."""
CLIENT_COMMANDS = ("call", "tasks", "functions", "completion")
COMPLETING = "_RUN_PY_COMPLETE"

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
