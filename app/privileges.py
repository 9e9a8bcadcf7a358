"""Who our processes are: another user than root, once what only root may do is done; and whose the files are that they need.

Root works with files of a user at the user's own risk: whatever lies in a directory that the user may write to is made and opened as that
user (`acting`), so that no link there leads root astray. Nothing here is needed, or done, where no other user is asked for.
"""

import contextlib
import ctypes
import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.errors import SettingsError

_PR_SET_NO_NEW_PRIVS = 38
_libc = ctypes.CDLL(None, use_errno=True)
_OURS = ("", "run", "run/*", "journal*", "outbox")
"""What in the data directory is ours to write."""


_EVERYBODYS = frozenset({Path("/"), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path("/home"), Path("/var")})
"""Directories whose mode is not to be changed, whoever starts us in them."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A user and a group; `name` is empty where we stay who we are."""

    name: str = ""
    uid: int = -1
    gid: int = -1
    home: str = ""

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """Do this as that user, and be root again afterwards."""
        if not self.name:
            yield
            return
        groups = os.getgroups()
        os.initgroups(self.name, self.gid)
        os.setegid(self.gid)
        os.seteuid(self.uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)

    def make_directory(self, path: Path) -> None:
        """Of mode 0700, with its parents where they are not there. Raises `OSError`, and `SettingsError` for one that is everybody's."""
        if path.resolve() in _EVERYBODYS:
            raise SettingsError(f"--data-dir: {path} is everybody's; give it a directory of its own")
        with self.acting(), contextlib.suppress(PermissionError):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)  # also where it was there before
            return
        for each in (*reversed(path.parents), path):  # the user cannot write to the first of them, and so cannot put a link into our way
            if not each.exists():
                each.mkdir(mode=0o700)
                os.chown(each, self.uid, self.gid, follow_symlinks=False)

    def open(self, path: Path, flags: int) -> int:
        """A file of mode 0600 that the user may write to; made where it is not there. Raises `OSError`."""
        flags |= os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
        with self.acting(), contextlib.suppress(PermissionError):
            return os.open(path, flags, 0o600)
        descriptor = os.open(path, (flags | os.O_NOFOLLOW) & ~os.O_TRUNC, 0o600)
        if self.name:
            _give(descriptor, path, self.uid, self.gid)
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
        return descriptor

    def become(self) -> None:
        """For good: groups, group and user, and no program that is started from now on can be more again. Raises `SettingsError`."""
        if not self.name:
            return
        try:
            os.initgroups(self.name, self.gid)
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
        except OSError as error:
            raise SettingsError(f"--user: cannot become {self.name}: {error.strerror}") from None
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
        os.environ.update(HOME=self.home, USER=self.name, LOGNAME=self.name)

    def check(self, data_dir: Path) -> None:
        """Whether what is in the data directory can be used. Raises `SettingsError`."""
        with self.acting():
            found = (path for pattern in _OURS for path in (data_dir.glob(pattern) if pattern else [data_dir]))
            bad = next((path for path in found if not os.access(path, os.R_OK | os.W_OK, effective_ids=True)), None)
        if bad is not None and self.name:
            raise SettingsError(f"--user: {self.name} may not write to {bad}; chown -R {self.name} {data_dir}")
        if bad is not None:
            raise SettingsError(f"--data-dir: {bad} cannot be written to by this user")


def _give(descriptor: int, path: Path, uid: int, gid: int) -> None:
    """Not what has another name elsewhere, which the user may have given it here."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(descriptor)
        raise PermissionError(errno.EPERM, "it has another name elsewhere, or is no file", str(path))
    os.fchown(descriptor, uid, gid)


def identity(user: str, group: str) -> Identity:
    """Who is meant by `--user` and `--group`, by name or number; the group of the user where none is given. Raises `SettingsError`."""
    if not user:
        if group:
            raise SettingsError("--group: wants --user as well")
        return Identity()
    known = _user(user)
    gid = _group(group) if group else known.pw_gid
    if (os.getuid(), os.getgid()) == (known.pw_uid, gid):
        return Identity()
    if os.geteuid() != 0:
        raise SettingsError(f"--user: only root can become {known.pw_name}; start it as that user")
    if known.pw_uid == 0:
        raise SettingsError("--user: root is whom we want to be no longer; name a user that tasks may run as")
    return Identity(known.pw_name, known.pw_uid, gid, known.pw_dir)


def _user(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        raise SettingsError(f"--user: there is no user {user!r}") from None


def _group(group: str) -> int:
    try:
        return int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise SettingsError(f"--group: there is no group {group!r}") from None
