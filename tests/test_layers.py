"""The house as it is drawn: which file may import which, what stays out of the master, and how long things may get.

A file imports from floors above its own in this list only, so there are no cycles. A new file gets a place in the list, and says in its
docstring what lives there.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

FLOORS: tuple[tuple[int, str], ...] = (
    (0, "app/__init__.py app/errors.py app/alerts.py app/collector.py app/patching.py"),
    (0, "app/log.py"),
    (0, "app/address.py app/labels.py app/locks.py app/sockets.py workers/checks.py workers/options.py"),
    (0, "workers/binding.py"),
    (1, "app/kinds.py app/private.py app/ends.py app/child.py app/tls.py app/secret.py"),
    (1, "app/table.py"),
    (1, "app/sealed.py app/settings.py app/wire.py app/turn.py app/rundir.py app/listeners.py app/offspring.py app/supervised.py"),
    (1, "app/scoreboard.py"),
    (1, "app/heartbeat.py app/control.py"),
    (1, "app/row.py"),
    (1, "app/presence.py"),
    (1, "workers/context.py workers/registry.py workers/mime.py workers/smtp_url.py"),
    (1, "workers/__init__.py workers/letter.py"),
    (1, "workers/smtp.py"),
    (1, "workers/smtp_server.py"),
    (1, "workers/mailer.py"),
    (1, "app/proof.py app/exposure.py"),
    (2, "app/messages.py app/outbox.py app/entrance.py"),
    (2, "app/task.py workers/attempt.py"),
    (2, "workers/mailing.py"),
    (3, "app/client.py app/journal.py app/fairness.py app/figures.py"),
    (2, "workers/vitals.py workers/parting.py"),
    (3, "workers/dispatches.py workers/sinks.py workers/slots.py workers/process.py workers/isolated.py workers/retirement.py"),
    (3, "workers/endings.py workers/overrun.py"),
    (3, "workers/limits.py workers/watchdog.py"),
    (3, "app/remote/socket.py app/remote/task.py"),
    (3, "app/remote/connection.py app/remote/conversation.py"),
    (3, "app/remote/__init__.py"),
    (3, "workers/claims.py workers/executor.py"),
    (4, "app/tables.py app/holdings.py app/meta.py"),
    (4, "app/searching.py"),
    (4, "app/pending.py"),
    (4, "app/store.py"),
    (4, "app/scribe.py"),
    (4, "app/durable.py"),
    (4, "app/link.py workers/short.py workers/threshold.py workers/house.py"),
    (4, "app/places.py app/pulse.py workers/connection.py"),
    (4, "workers/idlers.py"),
    (4, "app/pool.py app/sending.py workers/report.py"),
    (4, "workers/server.py"),
    (5, "app/ledger.py"),
    (5, "app/reports.py app/recovery.py app/watchtower.py"),
    (5, "app/dispatch.py"),
    (6, "app/gateway/identity.py app/gateway/rates.py app/gateway/shared.py app/gateway/bare.py"),
    (6, "app/gateway/wanted.py app/gateway/watch.py app/gateway/tokens.py"),
    (6, "app/gateway/authority.py"),
    (6, "app/gateway/frames.py app/gateway/hooks.py app/gateway/chunked.py app/gateway/problems.py app/gateway/schemas.py"),
    (6, "app/gateway/peer.py app/gateway/follow.py app/gateway/views.py app/gateway/answers.py app/gateway/openapi.py"),
    (6, "app/gateway/requests.py app/gateway/sse.py app/gateway/catalogue.py"),
    (6, "app/gateway/__init__.py app/gateway/handshake.py"),
    (6, "app/gateway/websocket.py app/gateway/pages.py app/gateway/callers.py app/gateway/doors.py"),
    (6, "app/gateway/shown.py app/gateway/admission.py app/gateway/handler.py app/gateway/reaper.py app/gateway/api.py"),
    (6, "app/gateway/session.py app/gateway/warden.py app/gateway/departure.py app/gateway/report.py"),
    (6, "app/gateway/metrics.py"),
    (6, "app/gateway/probes.py"),
    (6, "app/gateway/http.py"),
    (6, "app/gateway/server.py"),
    (6, "app/reload.py app/privileges.py"),
    (6, "app/orders.py app/daemon.py"),
    (7, "app/master.py workers/tasks/__init__.py workers/tasks/demo.py workers/tasks/mail.py"),
    (7, "app/commands/__init__.py app/commands/exits.py app/commands/flags.py app/commands/drawn.py app/commands/running.py"),
    (7, "app/commands/output.py app/commands/completing.py app/commands/completion.py"),
    (7, "app/commands/call.py app/commands/functions.py app/commands/tasks.py app/commands/token.py"),
    (7, "app/commands/status.py"),
    (7, "app/commands/connections.py"),
    (7, "app/commands/group.py"),
    (7, "app/commandline.py app/announcement.py"),
    (8, "run.py workers/cooperates.py"),
    (9, "app/testbed.py app/testproxy.py workers/testbed.py"),
    (9, "app/testing.py workers/testing.py"),
)
LEVEL = {name: level for level, names in FLOORS for name in names.split()}
FLOOR = {name: number for number, (_, names) in enumerate(FLOORS) for name in names.split()}
FOLDERS = ("app", "workers", "examples", "bench")
PLUGIN = ("app/testing.py", "app/testbed.py", "app/testproxy.py", "workers/testing.py", "workers/testbed.py")
LATE = ("run.py", "app/commands/output.py", "app/gateway/probes.py")
FILE_LIMIT, FUNCTION_LIMIT, MOST_FUNCTIONS = 300, 40, 30


def files() -> list[str]:
    """Our Python files, from the root; the tests and what tools leave behind are not among them."""
    found = (path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return ["run.py", *sorted(path.as_posix() for path in found if "node_modules" not in path.parts)]


def layered() -> list[str]:
    return [name for name in files() if name.startswith(("app/", "workers/", "run.py"))]


@cache
def tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"), name)


@cache
def modules(name: str) -> frozenset[str]:
    """The dotted names that a file imports; `from package import module` counts for both."""
    found: set[str] = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: a relative import; write it in full"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return frozenset(found)


@cache
def imported_files(name: str) -> frozenset[str]:
    """Files of ours that a file imports. A package counts where something of its own is wanted, not where a module in it is."""
    found = set()
    for module in modules(name):
        path = module.replace(".", "/")
        if (ROOT / f"{path}.py").is_file():
            found.add(f"{path}.py")
        elif (ROOT / path / "__init__.py").is_file() and not _only_submodules(name, module):
            found.add(f"{path}/__init__.py")
    return frozenset(found - {name})


def _only_submodules(name: str, package: str) -> bool:
    """Whether a file imports modules from a package, and nothing that the package itself defines."""
    path = ROOT / package.replace(".", "/")
    wanted = [
        alias.name for node in ast.walk(tree(name)) if isinstance(node, ast.ImportFrom) and node.module == package for alias in node.names
    ]
    return all((path / f"{item}.py").is_file() or (path / item).is_dir() for item in wanted)


def closure(name: str) -> set[str]:
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        for other in imported_files(waiting.pop()) - seen:
            seen.add(other)
            waiting.append(other)
    return seen | {name}


def functions(name: str) -> Iterator[tuple[str, int]]:
    """Each function with its length in lines."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{name}:{node.lineno} {node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def test_every_file_has_its_place_and_every_place_its_file() -> None:
    assert sorted(layered()) == sorted(FLOOR)


@pytest.mark.parametrize("name", layered())
def test_a_file_imports_from_floors_above_it_in_the_list_only(name: str) -> None:
    assert [other for other in sorted(imported_files(name)) if FLOOR.get(other, 0) >= FLOOR.get(name, 0)] == []


@pytest.mark.parametrize("name", [name for name in layered() if name.startswith("app/")])
def test_the_gateways_side_never_imports_the_workers_side(name: str) -> None:
    assert [other for other in imported_files(name) if other.startswith("workers/")] == []


@pytest.mark.parametrize("name", [name for name in layered() if name.startswith("workers/")])
def test_the_workers_side_imports_levels_0_to_4_of_the_gateways(name: str) -> None:
    assert [other for other in imported_files(name) if other.startswith("app/") and LEVEL.get(other, 0) > 4] == []


@pytest.mark.parametrize("name", [name for name in files() if name not in LATE])
def test_imports_stand_at_the_head_of_a_file(name: str) -> None:
    """But for the roles of run.py, after the fork; for rich, which takes longer to load than a command to run; and for prometheus_client,
    where metrics are asked for."""
    inside = [
        f"{name}:{inner.lineno}"
        for node in ast.walk(tree(name))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]
    assert inside == []


def test_one_file_imports_geventwebsocket() -> None:
    users = [name for name in files() if any(module.split(".")[0] == "geventwebsocket" for module in modules(name))]
    assert users == ["app/gateway/websocket.py"]


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        ("click", ("app/commands/",)),
        ("rich", ("app/commands/drawn.py",)),
        ("prometheus_client", ("app/gateway/metrics.py",)),
        ("websocket", ("app/remote/",)),
        ("app.remote", ("app/remote/", "app/commands/", "app/testing.py")),
        ("pytest", PLUGIN),
    ],
)
def test_what_only_clients_need_is_loaded_by_no_server(package: str, rooms: tuple[str, ...]) -> None:
    users = [name for name in layered() if any(f"{module}.".startswith(f"{package}.") for module in modules(name))]
    assert users
    assert [name for name in users if not name.startswith(rooms)] == []


def test_no_part_of_the_product_imports_what_is_there_for_tests() -> None:
    assert [(name, other) for name in layered() if name not in PLUGIN for other in imported_files(name) if other in PLUGIN] == []


def test_the_master_and_all_that_it_imports_need_the_standard_library_alone() -> None:
    tops = {module.split(".")[0] for name in closure("app/master.py") for module in modules(name)}
    assert tops - sys.stdlib_module_names == {"app"}


def test_what_the_command_line_imports_before_the_fork_needs_the_standard_library_alone() -> None:
    heads = [node for node in tree("run.py").body if isinstance(node, ast.Import | ast.ImportFrom)]
    named = {alias.name for node in heads if isinstance(node, ast.Import) for alias in node.names}
    named |= {str(node.module) for node in heads if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in named} - sys.stdlib_module_names == {"app"}
    later = ("app/gateway/server.py", "app/commands/group.py", "app/patching.py")  # after the fork, and where nothing is forked
    ours = {name for name in imported_files("run.py") if name.startswith("app/") and name not in later}
    tops = {module.split(".")[0] for name in ours for other in closure(name) for module in modules(other)}
    assert tops - sys.stdlib_module_names == {"app"}
    assert "ssl" not in tops, "what is loaded before the patching is not patched well"


@pytest.mark.parametrize("name", files())
def test_a_file_says_what_it_is_and_stays_short(name: str) -> None:
    assert ast.get_docstring(tree(name))
    assert (ROOT / name).read_text(encoding="utf-8").count("\n") <= FILE_LIMIT


def test_functions_stay_short() -> None:
    sizes = dict(entry for name in files() for entry in functions(name))
    assert [entry for entry, size in sizes.items() if size > FUNCTION_LIMIT] == []
    assert sum(size <= MOST_FUNCTIONS for size in sizes.values()) >= 0.9 * len(sizes)
