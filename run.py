#!/usr/bin/env python3
"""The command line: parse, choose a role, go. What a role does is not here; role functions import it after the fork and the patching.

The commands that talk to a server that runs are in `app/commands/`, which only they load: a server starts without it.
"""

import functools
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn

from app import commandline, daemon, ends, listeners, log, orders, privileges, rundir, secret, supervised
from app.address import Address
from app.announcement import address_of, announce, to_stdout, warn
from app.child import EXIT_NOT_RUNNING, EXIT_ORPHANED, EXIT_SETTINGS, READY, Child, hold_standard_files, live, put_orders_off
from app.errors import SettingsError
from app.master import Master
from app.offspring import Role
from app.privileges import Identity
from app.row import Row
from app.settings import Settings


def main(argv: Sequence[str]) -> int:
    """Do what the command line says; the exit code."""
    hold_standard_files()
    try:
        words = commandline.for_client(argv)
        if words is not None:
            from app.commands.group import main as client

            return client(words)
        secret.take_variable("HANDOFF_TOKEN", os.environ)  # of commands; no task is to inherit it
        flags, chosen = commandline.parse(argv, COMMANDS)
        os.umask(chosen.umask)
        return COMMANDS[flags.command](chosen, flags)
    except SettingsError as error:
        print(f"handoff: {log.one_line(error.message)}", file=sys.stderr)
        return EXIT_SETTINGS


def start(chosen: Settings, flags: Namespace) -> int:
    """The gateway and the workers under a master; stays until all of them have ended, or with -d until they serve."""
    chosen = _with_secret(chosen)
    identity = _identity(chosen)
    if not flags.daemon:
        return _start(chosen, identity, to_stdout)
    path = chosen.data_dir / daemon.LOG_NAME
    chosen = replace(chosen, log_file=chosen.log_file or path)  # by its name, so that it can be rotated
    return daemon.start(functools.partial(_start, chosen, identity), path, identity)


def _start(chosen: Settings, identity: Identity, say: Callable[[str], None], private: tuple[int, ...] = ()) -> int:
    supervised.follow(os.environ)
    put_orders_off()
    try:
        with identity.acting():
            log.configure("master", chosen.log_level, chosen.log_format, chosen.log_file)
            lock = rundir.lock(chosen.run_dir)
        return _lead(chosen, identity, say, (*private, lock))
    except SettingsError as error:  # in the background, nobody else is left to say it
        print(f"handoff: {log.one_line(error.message)}", file=sys.stderr)
        return EXIT_SETTINGS


def _lead(chosen: Settings, identity: Identity, say: Callable[[str], None], private: tuple[int, ...]) -> int:
    roles = [*_workers(chosen), Role("gateway", 1, listeners.listen(chosen.ws, "--ws"), functools.partial(run_gateway, chosen))]
    addresses = {role.name: address_of(chosen, role.name, role.listener) for role in roles}
    forget_pid = orders.write_pid(chosen.pid_file or chosen.run_dir / "master.pid", identity)
    try:
        _become(identity, chosen, addresses)
        _entitle("master", str(chosen.data_dir))
        ends.sweep(chosen.run_dir)
        ready = functools.partial(announce, chosen, addresses, say)
        return Master(roles, chosen.graceful, chosen.log_level, ready, chosen.run_dir, private, Row(chosen.run_dir)).run()
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


def _with_secret(chosen: Settings) -> Settings:
    """It is read while we are whoever started us, and stands in no environment from then on."""
    return replace(chosen, secret=secret.take_secret(chosen.secret_file, os.environ))


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
    warn(chosen, addresses)


def _workers(chosen: Settings) -> list[Role]:
    if chosen.pool and "workers" not in chosen.given:
        return []
    run = functools.partial(run_worker, chosen, chosen.workers)
    return [Role("worker", chosen.workers, listeners.listen(chosen.text, "--text"), run)]


def gateway(chosen: Settings, _flags: Namespace) -> int:
    """One gateway, in this very process."""
    _live_alone(_with_secret(chosen), "gateway", chosen.name or "gateway", chosen.ws, run_gateway)


def worker(chosen: Settings, _flags: Namespace) -> int:
    """One worker, in this very process."""
    siblings = chosen.workers if chosen.text.fd >= 0 and "workers" in chosen.given else 1

    def run(chosen: Settings, child: Child) -> None:
        try:
            run_worker(chosen, siblings, child)
        finally:
            supervised.end_what_is_left(os.environ)

    _live_alone(_with_secret(chosen), "worker", chosen.name or f"worker-{os.getpid()}", chosen.text, run)


def _live_alone(chosen: Settings, role: str, name: str, address: Address, run: Callable[[Settings, Child], None]) -> NoReturn:
    """What a process without a master does for itself, before it lives."""
    identity = _identity(chosen)
    supervised.follow(os.environ)
    put_orders_off()
    with identity.acting():
        log.configure(name, chosen.log_level, chosen.log_format, chosen.log_file)
    listener = listeners.listen(address, "--ws" if role == "gateway" else "--text")
    addresses = {role: address_of(chosen, role, listener)}
    _become(identity, chosen, addresses)
    ends.sweep(chosen.run_dir)
    live(Child(name, listener, functools.partial(_say, chosen, addresses)), functools.partial(run, chosen), chosen.log_level)


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
    from app.patching import patch

    patch()
    from gevent import get_hub

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


def _say(chosen: Settings, addresses: dict[str, Address], said: bytes) -> None:
    """There is no master to hear it, but somebody who started us."""
    if said == READY:
        announce(chosen, addresses, to_stdout)


COMMANDS = {"start": start, "gateway": gateway, "worker": worker, "stop": stop, "restart": restart, "reload": reload}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
