"""What an operator should be told of: the conditions that have a stable name in the log, and what each means. `docs/metrics.md` has the
same table.

An entry names its condition with the first word of its text, as in `disk-full: nothing is accepted …`. Where that is one of these, and the
entry is a warning or worse, it is an alert. Only what stands in the code is looked at, never what came from outside.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_NAME = re.compile(r"([a-z]+(?:-[a-z]+)+)(?::|\Z)")
_OURS = "A defect of ours: the entry has a traceback."

ALERTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        # The disk.
        "disk-full": "The journal's disk is full: nothing is accepted until there is room.",
        "disk-has-room": "The disk was full, and tasks are accepted again.",
        "journal-broken": "The journal cannot be written: the gateway ends, and is started again.",
        "journal-full": "The gateway ended while the disk was full; the next one takes up what is in the log.",
        "log-file-unavailable": "The log file could not be opened anew: entries go to the old one.",
        "scoreboard-full": "More functions were counted than there is room for: a total went back.",
        "scoreboard-unavailable": "No room for a slot: a process is missing in `/metrics` and `status`.",
        # Processes.
        "process-exited": "A process ended that nobody had told to; another takes its place.",
        "process-killed": "A process did not end in the time that it had, and was killed.",
        "process-unstartable": "A process cannot be started, or did not come up.",
        "reload-failed": "Changed code did not load, or its processes did not come up: those that served serve on.",
        "reload-forced": "A process did not let go at a reload, and was killed.",
        "reload-unsaid": "How a reload ended could not be written down for who asked for it.",
        "hub-blocked": "Something holds an event loop, and all else in its process with it: the entry names the task and has its stack.",
        "task-stuck": "A task cannot be ended; its process leaves once the others in it are done.",
        "worker-tainted": "A worker takes nothing more, because of such a task, and is replaced.",
        "process-died": 'The process of a `run_in="process"` task died.',
        # Between gateway and workers.
        "link-silent": "A worker does not answer; it gets no tasks until it does.",
        "link-gone": "A worker was given up, with tasks that it had.",
        "task-lost": "A task ended because its worker is gone or ran over its hard limit; its report says how.",
        "worker-unreachable": "A worker of `--pool` cannot be reached.",
        "report-refused": "A worker said something of a task that cannot be.",
        # Limits of the system.
        "connections-full": "No more connections are accepted until some end: the limit of open files is reached.",
        "accept-failed": "A connection could not be accepted: out of file descriptors, most likely.",
        "look-failed": "The run directory cannot be read: out of file descriptors, most likely.",
        "control-unavailable": "A process cannot be asked for its connections.",
        # Who may do what.
        "token-refused": "Somebody showed a token that is not good, or none; the entry has the address.",
        "authentication-failed": "Your own `authenticate` raised, or returned what is no identity: nobody is let in by it.",
        "authentication-late": "Your own `authenticate` did not answer in time: nobody is let in by it.",
        "tokens-unusable": "The tokens file was changed to something that cannot be used: those that were read before stay.",
        # Settings.
        "open-to-others": "A port can be reached from other machines, and takes whatever comes.",
        "running-as-root": "Tasks may do anything on this machine.",
        # What should never be seen.
        "error-details": "What a task raised had details that JSON has no form for, or too many: they were left out.",
        "handler-failed": "A handler of your own raised: the entry has a traceback.",
        "commit-failed": _OURS,
        "connection-failed": _OURS,
        "line-failed": _OURS,
        "message-failed": _OURS,
        "opening-failed": "A handler of your own raised when a connection was opened: the entry has a traceback.",
        "push-failed": _OURS,
        "report-failed": _OURS,
        "request-failed": _OURS,
        "sweep-failed": _OURS,
        "turn-failed": _OURS,
        "warden-failed": _OURS,
        "watcher-failed": _OURS,
        "beat-failed": _OURS,
    }
)


def name_of(text: str) -> str:
    """The name at the head of an entry's text, before anything is filled in; empty where it has none."""
    found = _NAME.match(text)
    return found.group(1) if found else ""
