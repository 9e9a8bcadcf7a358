"""Probes and metrics of real servers: scraped and parsed as Prometheus does, over kills of any process, and with and without a master."""

import http.client
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

from app.client import TaskClient
from app.errors import RemoteError
from app.gateway.metrics import METRICS
from tests.effects import open_gate
from tests.harness import FINAL, Server, TextClient, WsClient, wait_until
from tests.proxy import Proxy

FLAGS = ("--tasks", "tests.sample_tasks")
Start = Callable[..., Server]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def ask(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    """The status, the body, and its type."""
    connection = http.client.HTTPConnection(urlsplit(server.http_url).netloc, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.getheader("Content-Type", "")
    finally:
        connection.close()


def scrape(server: Server) -> Samples:
    """All samples, each of which is there once."""
    status, text, _ = ask(server, "/metrics")
    assert status == 200, text
    samples = [(sample.name, tuple(sorted(sample.labels.items())), sample.value) for family in parse(text) for sample in family.samples]
    found = {(name, labels): value for name, labels, value in samples}
    assert len(found) == len(samples)
    return found


def value(server: Server, name: str, **labels: str) -> float:
    return scrape(server).get((name, tuple(sorted(labels.items()))), 0.0)


def finished(server: Server, function: str) -> dict[str, float]:
    """How many of a function ended how."""
    wanted = (("function", function),)
    return {
        labels[1][1]: count
        for (name, labels), count in scrape(server).items()
        if name == "handoff_tasks_finished_total" and labels[:1] == wanted
    }


def run(client: WsClient, task_id: str, function: str, *args: Any) -> str:
    """The name of its end."""
    client.send({"id": task_id, "function": function, "args": list(args), "events": "final"})
    return str(client.final(task_id, 20)["event"])


def test_what_is_exposed_is_what_the_table_says(server: Server) -> None:
    text = ask(server, "/metrics")[1]
    families = {family.name: (family.type, family.documentation) for family in parse(text)}
    assert families == {kind.name: (kind.type, kind.help) for kind in METRICS}


def test_openmetrics_are_had_by_who_asks_for_them(server: Server) -> None:
    _, text, kind = ask(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert {family.name for family in parse_open(text)} == {kind.name for kind in METRICS}


def test_each_end_is_counted_once_by_who_had_the_task(server: Server, client: WsClient) -> None:
    assert run(client, "m1", "mark") == "succeeded"
    assert run(client, "m2", "fail") == "failed"
    direct = TaskClient("{}:{}".format(*server.text_address))
    direct.call("mark")
    with pytest.raises(RemoteError):
        direct.call("fail")
    direct.close()
    with TextClient(server.text_address) as full_form:
        full_form.send({"id": "d", "function": "gated", "args": ["nowhere"]})
        full_form.until(lambda line: line.get("event") == "started")
        full_form.send({"id": "d", "cancel": True})
        full_form.until(lambda line: line.get("event") in FINAL)
    wait_until(lambda: finished(server, "mark") == {"succeeded": 2})
    wait_until(lambda: finished(server, "fail") == {"failed": 2})
    wait_until(lambda: finished(server, "gated") == {"cancelled": 1})
    assert value(server, "handoff_tasks_accepted_total") == 2
    assert value(server, "handoff_task_run_seconds_count") == 5
    assert value(server, "handoff_task_wait_seconds_count") == 2
    assert value(server, "handoff_journal_commits_total") >= value(server, "handoff_journal_transactions_total") > 0
    assert value(server, "handoff_journal_bytes") > 0
    assert value(server, "handoff_workers_connected") == 2


def test_no_name_that_is_not_in_the_catalogue_becomes_a_label(server: Server, client: WsClient) -> None:
    assert client.ask({"id": "x", "function": "made_up"})["error"]["code"] == "unknown_function"
    with TextClient(server.text_address) as direct:
        assert direct.ask({"function": "made_up"})["error"]["code"] == "unknown_function"
    run(client, "x2", "mark")
    wait_until(lambda: finished(server, "mark"))
    assert not finished(server, "made_up")


def test_every_process_is_in_it(server: Server) -> None:
    names = [labels[0][1] for (name, labels), up in scrape(server).items() if name == "handoff_process_up" and up == 1]
    assert sorted(names) == ["gateway", "master", "worker-1", "worker-2"]
    for process in names:
        assert 5e6 < value(server, "handoff_process_memory_bytes", process=process) < 5e8
    wait_until(lambda: value(server, "handoff_process_connections", process="gateway") < 10)  # scrapes of before are over
    with ExitStack() as stack:
        for _ in range(15):
            stack.enter_context(WsClient(server.ws_url))
        wait_until(lambda: value(server, "handoff_process_connections", process="gateway") >= 15)


def test_what_waits_and_runs_is_seen_with_its_age(start_server: Start, gate: Path) -> None:
    server = start_server(*FLAGS, "--workers", "1", "--concurrency", "2")
    with WsClient(server.ws_url) as client:
        for number in range(5):
            client.send({"id": f"w{number}", "function": "gated", "args": [str(gate)]})
        wait_until(lambda: value(server, "handoff_queue_tasks") == 4)
        assert value(server, "handoff_tasks_running") == 1  # a tenth of the slots is no single function's
        wait_until(lambda: value(server, "handoff_process_tasks_running", process="worker-1") == 1)
        assert value(server, "handoff_tasks_unfinished") == 5
        wait_until(lambda: value(server, "handoff_queue_oldest_seconds") > 0.5)
        open_gate(gate)
        for number in range(5):
            client.final(f"w{number}")
    wait_until(lambda: value(server, "handoff_tasks_unfinished") == 0)
    assert value(server, "handoff_queue_oldest_seconds") == 0
    assert value(server, "handoff_task_wait_seconds_sum") > 0.5


def test_a_hub_that_is_blocked_is_seen_while_it_is_and_afterwards(start_server: Start) -> None:
    server = start_server(*FLAGS, "--workers", "1")
    with WsClient(server.ws_url) as client:
        client.send({"id": "s", "function": "spin", "args": [1.5]})
        lag = wait_until(lambda: (found := value(server, "handoff_process_hub_lag_seconds", process="worker-1")) > 0.5 and found)
        assert lag < 20
        client.final("s", 20)
    wait_until(lambda: value(server, "handoff_hub_blocked_total") >= 1)
    assert value(server, "handoff_process_hub_lag_seconds", process="worker-1") > 0.5


# Kills.


def counters(samples: Samples) -> Samples:
    return {key: count for key, count in samples.items() if key[0].endswith(("_total", "_bucket", "_count", "_sum"))}


def test_no_counter_goes_back_whoever_is_killed(start_server: Start) -> None:
    server = start_server(*FLAGS)
    before: Samples = {}

    def looks() -> Samples:
        nonlocal before
        now = counters(scrape(server))
        assert {key: (count, now.get(key)) for key, count in before.items() if now.get(key, 0) < count} == {}
        before = now
        return now

    def settled(function: str, count: int) -> bool:
        return looks().get(("handoff_tasks_finished_total", (("function", function), ("outcome", "succeeded"))), 0) == count

    direct, total = TaskClient("{}:{}".format(*server.text_address)), 0
    for killed in ("worker", "gateway", "worker"):
        with WsClient(server.ws_url) as client:
            for number in range(5):
                run(client, f"k{total + number}", "mark")
                direct.call("echo", {"n": number})
        total += 5
        wait_until(lambda: settled("mark", total) and settled("echo", total))  # noqa: B023 - used up at once
        victims = server.worker_pids() if killed == "worker" else [server.gateway_pid()]
        direct.close()
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        wait_until(lambda: not set(victims) & server.tree())  # noqa: B023
        wait_until(lambda: reachable(server) and value(server, "handoff_workers_connected") == 2, 20)
        looks()
        direct = TaskClient("{}:{}".format(*server.text_address))
    direct.close()
    assert settled("mark", total)
    assert settled("echo", total)
    wait_until(lambda: value(server, "handoff_respawns_total", role="worker") == 4)
    assert value(server, "handoff_respawns_total", role="gateway") == 1


def test_a_reload_is_no_respawn_and_no_counter_goes_back(start_server: Start, gate: Path) -> None:
    server = start_server(*FLAGS)
    with WsClient(server.ws_url) as client:
        client.send({"id": "long", "function": "gated", "args": [str(gate)]})
        client.until(lambda message: message.get("event") == "started")
        for number in range(5):
            run(client, f"h{number}", "mark")
    wait_until(lambda: finished(server, "mark") == {"succeeded": 5})
    before, gateway = counters(scrape(server)), server.gateway_pid()
    server.send_signal(signal.SIGHUP)
    wait_until(
        lambda: value(server, "handoff_process_up", process="worker-1") + value(server, "handoff_process_up", process="worker-2") == 3, 30
    )
    wait_until(lambda: server.gateway_pid() != gateway and reachable(server), 20)
    now = counters(scrape(server))
    assert {key: (count, now.get(key)) for key, count in before.items() if now.get(key, 0) < count} == {}
    assert value(server, "handoff_respawns_total", role="worker") == 0
    open_gate(gate)
    wait_until(lambda: finished(server, "gated") == {"succeeded": 1}, 20)
    assert finished(server, "mark") == {"succeeded": 5}


def reachable(server: Server) -> bool:
    try:
        return ask(server, "/healthz")[0] == 200
    except OSError:
        return False


def test_a_task_that_is_tried_again_and_a_connection_that_is_made_again_are_counted(start_server: Start, gate: Path) -> None:
    server = start_server(*FLAGS, "--workers", "1")
    with WsClient(server.ws_url) as client:
        client.send({"id": "r", "function": "gated_again", "args": [str(gate)]})
        client.until(lambda message: message.get("event") == "started")
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        client.until(lambda message: message.get("event") == "retrying")
        open_gate(gate)
        assert client.final("r", 20)["result"] == 2
    wait_until(lambda: value(server, "handoff_tasks_retried_total") == 1)
    assert value(server, "handoff_worker_reconnects_total") == 0


def test_a_connection_to_a_worker_that_is_made_again_is_counted(start_server: Start) -> None:
    worker = start_server("worker")
    with Proxy() as proxy:
        proxy.target = worker.text_address
        gateway = start_server("gateway", "--pool", f"127.0.0.1:{proxy.port}")
        assert value(gateway, "handoff_worker_reconnects_total") == 0

        def lost() -> bool:
            proxy.cut()  # again, since a connection may just have been on its way
            return value(gateway, "handoff_workers_connected") == 0

        wait_until(lost)
        before = value(gateway, "handoff_worker_reconnects_total")
        proxy.mend()
        wait_until(lambda: value(gateway, "handoff_worker_reconnects_total") > before)
        wait_until(lambda: value(gateway, "handoff_workers_connected") == 1)
        gateway.stop()


# Probes.


def test_healthy_and_ready(server: Server) -> None:
    assert ask(server, "/healthz")[:2] == (200, "ok\n")
    assert ask(server, "/readyz")[:2] == (200, "ready\n")
    assert ask(server, "/readyz", "HEAD")[:2] == (200, "")


def test_a_gateway_without_workers_is_healthy_and_not_ready_until_one_comes(start_server: Start, tmp_path: Path) -> None:
    gateway = Gateway(start_server, tmp_path)
    assert ask(gateway.server, "/healthz")[0] == 200
    assert ask(gateway.server, "/readyz")[:2] == (503, "no worker answers\n")
    worker = start_server("worker", data_dir=tmp_path)
    wait_until(lambda: ask(gateway.server, "/readyz")[0] == 200)
    names = {labels[0][1] for (name, labels) in scrape(gateway.server) if name == "handoff_process_up"}
    assert names == {"gateway", f"worker-{worker.pid}"}, "without a master too"
    worker.kill()
    wait_until(lambda: ask(gateway.server, "/readyz")[:2] == (503, "no worker answers\n"))
    assert value(gateway.server, "handoff_process_up", process=f"worker-{worker.pid}") == 0


class Gateway:
    """One that is not ready for want of workers."""

    def __init__(self, start_server: Start, data_dir: Path) -> None:
        worker = start_server("worker", data_dir=data_dir)
        self.server = start_server("gateway", data_dir=data_dir)
        worker.stop()
        wait_until(lambda: ask(self.server, "/readyz")[0] == 503)


def test_a_gateway_that_drains_is_not_ready(start_server: Start, gate: Path) -> None:
    server = start_server(*FLAGS)
    connection = http.client.HTTPConnection(urlsplit(server.http_url).netloc, timeout=10)
    with WsClient(server.ws_url) as client:
        client.send({"id": "d", "function": "gated", "args": [str(gate)]})
        client.until(lambda message: message.get("event") == "started")
        connection.request("GET", "/readyz")
        assert connection.getresponse().read() == b"ready\n"
        os.kill(server.gateway_pid(), signal.SIGTERM)
        wait_until(lambda: _asked_again(connection) == (503, b"draining\n"))
        open_gate(gate)
        client.final("d")
    connection.close()


def _asked_again(connection: http.client.HTTPConnection) -> tuple[int, bytes]:
    connection.request("GET", "/readyz")
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_while_the_disk_is_full_it_is_not_ready_but_seen(start_server: Start, small_disk: Path) -> None:
    server = start_server(*FLAGS, data_dir=small_disk)
    with pytest.raises(OSError, match="No space"):
        (small_disk / "others").write_bytes(b"x" * 9_000_000)
    with WsClient(server.ws_url) as client:
        number = 0
        while ask(server, "/readyz")[0] == 200:
            number += 1
            client.send({"id": f"f{number}", "function": "echo", "args": {"text": "x" * 20_000}, "events": "final"})
            client.receive()
    assert ask(server, "/readyz")[:2] == (503, "the disk of the journal is full\n")
    assert " alert=yes: disk-full: " in server.log()
    wait_until(lambda: value(server, "handoff_tasks_accepted_total") >= number - 1)
    os.kill(server.worker_pids()[0], signal.SIGKILL)  # one that comes while there is no room takes the slot that is there
    wait_until(
        lambda: value(server, "handoff_respawns_total", role="worker") == 1 and value(server, "handoff_process_up", process="worker-1") == 1
    )
    (small_disk / "others").unlink()
    wait_until(lambda: ask(server, "/readyz")[0] == 200)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_they_are_let_in_as_every_other_request_is(server: Server, path: str) -> None:
    assert ask(server, path, Origin="https://evil.example")[0] == 403
    assert ask(server, path, Host="evil.example")[0] == 403
    assert ask(server, path, "POST")[0] == 405
    assert ask(server, f"{path}/more")[0] == 404
