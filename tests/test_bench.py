"""The benchmark is believed, so its own sums are checked: every task counted once, and what is reported follows from what was counted."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import build, procs
from bench.report import Target, percentile

ROOT = Path(__file__).resolve().parent.parent


def _needs() -> str:
    try:
        build.program("load")
        build.floor_command()
    except build.Missing as missing:
        return str(missing)
    return ""


@pytest.fixture(scope="module")
def throughput(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    missing = _needs()
    if missing:
        pytest.skip(missing)
    written = tmp_path_factory.mktemp("bench") / "out.json"
    command = [sys.executable, "bench", "throughput", "--seconds", "1", "--rounds", "1", "--json", str(written)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    section: dict[str, Any] = json.loads(written.read_text())["throughput"]
    return section


def test_every_task_sent_is_finished_once(throughput: dict[str, Any]) -> None:
    for result in throughput["raw"]:
        assert result["sent"] == result["finished"] > 0
        assert result["errors"] == result["duplicates"] == 0


def test_rate_latencies_and_cpu_follow_from_the_tasks_counted(throughput: dict[str, Any]) -> None:
    for result in throughput["raw"]:
        assert 0 < result["measured"] <= result["finished"]
        assert result["latency_us"]["count"] == result["measured"]
        assert result["per_second"] * result["seconds"] == pytest.approx(result["measured"], rel=1e-3)
        assert result["cpu_us"] * result["per_second"] == pytest.approx(result["cpu_share"] * 1e6, rel=1e-3)
        assert 0 < result["latency_us"]["p50"] <= result["latency_us"]["p99"] <= result["latency_us"]["max"]


def test_tasks_and_floor_are_measured_in_the_same_run_and_compared(throughput: dict[str, Any]) -> None:
    spent = {(result["mode"], result["outstanding"]): result["cpu_us"] for result in throughput["raw"]}
    assert set(spent) == {(mode, outstanding) for mode in ("tasks", "echo") for outstanding in (1, 20)}
    for target, outstanding in zip(throughput["targets"], (1, 20), strict=True):
        assert target["measured"] == pytest.approx(spent["tasks", outstanding] / spent["echo", outstanding])
        assert target["met"] is (target["measured"] <= target["most"])


def test_cpu_time_of_a_child_that_died_is_counted() -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'for _ in range(10**7): pass']); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        before = procs.cpu(process.pid)
        assert process.stdout is not None
        process.stdout.readline()
        (only,) = procs.tree(process.pid)
        assert only.reaped > only.spent
        assert before.until(procs.cpu(process.pid)) >= only.reaped / 2
        process.kill()


def test_memory_of_a_tree_is_that_of_its_processes_together() -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'kept = bytearray(64 << 20); print(flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert procs.pss(process.pid) > 64 << 20
        assert len(procs.tree(process.pid)) == 2
        process.communicate(b"\n")


def test_a_percentile_is_a_sample_and_a_target_is_judged_unrounded() -> None:
    samples = [float(number) for number in range(1, 101)]
    assert [percentile(samples, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert percentile([7.0], 0.99) == 7.0
    assert not Target("", 4.60001, 4.6, "").met
