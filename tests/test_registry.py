"""The registry: what can be registered, under which names and with which options, and that nothing else can be reached."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.errors import BadArguments, SettingsError, UnknownFunction
from workers.options import Options, parse_options
from workers.registry import REGISTRY, Registry


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that modules can be imported from."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("legacy_billing", "broken_tasks"):
        sys.modules.pop(name, None)


def plain(to: str, count: int = 1) -> str:
    """Send
    something.

    More about it.
    """
    return to * count


def test_a_task_stays_the_function_that_it_was(registry: Registry) -> None:
    assert registry.task(plain) is plain
    assert registry.task(name="renamed", run_in="thread")(plain) is plain
    assert plain("a", 2) == "aa"


def test_a_registered_function_tells_what_it_is(registry: Registry) -> None:
    registry.task(plain)
    function = registry.get("plain")
    assert (function.call, function.doc, function.is_generator) == (plain, "Send something.", False)
    assert function.target == f"{__name__}:plain"
    assert function.options == Options()
    assert function.bind({"to": "a"}) == ((), {"to": "a"})
    with pytest.raises(BadArguments):
        function.bind({"to": 1})


def test_the_catalogue_has_what_a_page_needs_to_ask_for_arguments(registry: Registry) -> None:
    registry.task(name="b.plain", retryable=True, retry_on=OSError, time_limit=60)(plain)
    registry.add(len, "a")
    first, second = registry.catalogue()
    assert first["name"] == "a"
    assert second == {
        "name": "b.plain",
        "doc": "Send something.",
        "params": [
            {"name": "to", "type": "str", "required": True},
            {"name": "count", "type": "int", "required": False, "default": 1},
        ],
        "options": {
            "run_in": "greenlet",
            "retryable": True,
            "retry_on": ["OSError"],
            "attempts": 3,
            "backoff": 1.0,
            "time_limit": 60,
            "hard_limit": None,
            "max_running": None,
            "durable": True,
        },
    }


def test_an_unknown_name_is_refused_and_never_looked_up(registry: Registry) -> None:
    registry.task(plain)
    for name in ("", "os.system", "plain.__globals__", "__class__", "builtins:eval", "Plain", "plain "):
        with pytest.raises(UnknownFunction, match="describe"):
            registry.get(name)


def test_two_functions_cannot_share_a_name_but_one_may_come_twice(registry: Registry) -> None:
    registry.task(plain)
    registry.task(plain)
    with pytest.raises(SettingsError, match=r"two functions are called plain: .*test_registry:plain and time:sleep"):
        registry.add(time.sleep, "plain")


@pytest.mark.parametrize("name", ["a", "send_mail", "billing.charge_all", "_x", "a" * 100])
def test_names_of_letters_digits_underscores_and_dots(registry: Registry, name: str) -> None:
    registry.add(plain, name)
    assert registry.get(name).name == name


@pytest.mark.parametrize("name", ["", "1a", "a b", "a-b", "a..b", ".a", "a.", "é", "a\n", "a" * 101])
def test_other_names_are_refused(registry: Registry, name: str) -> None:
    with pytest.raises(ValueError, match="the name"):
        registry.task(name=name)(plain)


def test_generators_are_known_for_what_they_are(registry: Registry) -> None:
    def count(start: int) -> Iterator[int]:
        yield start

    registry.task(count)
    assert registry.get("count").is_generator


def test_a_coroutine_function_is_refused_with_advice(registry: Registry) -> None:
    async def fetch() -> None: ...

    async def stream() -> Any:
        yield 1

    for function in (fetch, stream):
        with pytest.raises(ValueError, match="plain blocking code"):
            registry.task(function)


def test_what_runs_in_a_process_must_be_found_from_there(registry: Registry) -> None:
    def local() -> None: ...

    with pytest.raises(ValueError, match="top of a module"):
        registry.task(run_in="process")(local)
    with pytest.raises(ValueError, match="top of a module"):
        registry.add(lambda: 1, "nameless", Options(run_in="process"))
    registry.task(run_in="process")(plain)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("run_in", "fiber"),
        ("retryable", 1),
        ("durable", "no"),
        ("time_limit", 0),
        ("time_limit", -1.0),
        ("time_limit", "60"),
        ("time_limit", True),
        ("time_limit", float("nan")),
        ("hard_limit", float("inf")),
        ("backoff", -1),
        ("attempts", 0),
        ("attempts", 2.0),
        ("max_running", 0),
        ("max_running", True),
        ("retry_on", ["OSError"]),
        ("retry_on", ("OSError",)),
        ("retry_on", int),
    ],
)
def test_an_option_that_cannot_be_used_is_named_with_what_it_may_be(registry: Registry, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{option} must be "):
        registry.task(None, **{option: value})


def test_the_hard_limit_is_not_below_the_soft_one(registry: Registry) -> None:
    with pytest.raises(ValueError, match="hard_limit must not be below time_limit"):
        registry.task(run_in="process", time_limit=10, hard_limit=5)


def test_an_option_that_is_none_is_refused_with_those_there_are(registry: Registry) -> None:
    with pytest.raises(ValueError, match=r"no option timeout; it has name, run_in, .*durable"):
        registry.task(timeout=3)


def test_once_booted_nothing_can_be_added(registry: Registry) -> None:
    registry.task(plain)
    registry.freeze()
    with pytest.raises(SettingsError, match="while the process boots"):
        registry.add(len)
    assert registry.get("plain").call is plain


def test_an_untouched_function_is_registered_by_its_dotted_name(registry: Registry, folder: Path) -> None:
    (folder / "legacy_billing.py").write_text(
        "class Account:\n    @staticmethod\n    def close(number): return number\ndef charge_all(): return 7\n"
    )
    registry.load(dotted=["legacy_billing:charge_all", "billing.charge = legacy_billing:charge_all;run_in=thread; time_limit=2.5"])
    registry.load(dotted=["legacy_billing:Account.close"])
    assert registry.get("charge_all").call() == 7
    assert registry.get("charge_all").target == "legacy_billing:charge_all"
    assert registry.get("billing.charge").options == Options(run_in="thread", time_limit=2.5)
    assert registry.get("close").bind([3]) == ((3,), {})


def test_a_c_function_can_be_a_task(registry: Registry) -> None:
    for text in ("time:sleep", "builtins:max", "largest=builtins:max"):
        registry.add_dotted(text)
    assert registry.get("largest").call(*registry.get("largest").bind([1, 2])[0]) == 2
    assert registry.get("sleep").target == "time:sleep"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("legacy", "give module:function"),
        ("legacy:", "give module:function"),
        (":charge", "give module:function"),
        ("", "give module:function"),
        ("no_such_module_here:charge", "cannot load the task module no_such_module_here: ModuleNotFoundError"),
        ("time:no_such_function", "time has no no_such_function"),
        ("time:timezone", "must be callable"),
        ("time:sleep;run_in", "is no option; there are run_in=…, retryable=…"),
        ("time:sleep;speed=3", "is no option"),
        ("time:sleep;run_in=fiber", "run_in must be"),
        ("time:sleep;time_limit=soon", "time_limit=soon"),
        ("time:sleep;retryable=maybe", "retryable=maybe: must be true or false"),
        ("a b=time:sleep", "the name 'a b' cannot be used"),
    ],
)
def test_a_dotted_name_that_cannot_be_used_says_why(registry: Registry, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        registry.add_dotted(text)
    assert message in caught.value.message
    assert text in caught.value.message or "no_such_module_here" in text


def test_all_options_but_retry_on_can_be_set_in_text() -> None:
    text = "run_in=process;retryable=true;attempts=5;backoff=0.5;time_limit=10;hard_limit=20;max_running=2;durable=FALSE"
    assert parse_options(text, "here") == Options("process", True, (), 5, 0.5, 10.0, 20.0, 2, False)
    assert parse_options(" ; ", "here") == Options()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module_here", "ModuleNotFoundError: No module named 'no_such_module_here'"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("1 / 0", "ZeroDivisionError"),
        ("from workers.registry import task\n@task(time_limit=-1)\ndef f(): ...", "time_limit must be"),
        ("from workers.registry import task\n@task\nasync def f(): ...", "plain blocking code"),
    ],
)
def test_a_module_that_does_not_load_is_named_with_the_reason(registry: Registry, folder: Path, code: str, reason: str) -> None:
    (folder / "broken_tasks.py").write_text(code)
    with pytest.raises(SettingsError, match="cannot load the task module broken_tasks") as caught:
        registry.load(["broken_tasks"])
    assert reason in caught.value.message
    assert "broken_tasks.py" in caught.value.message
    assert "\n" not in caught.value.message


def test_our_own_tasks_are_always_loaded() -> None:
    REGISTRY.load()
    names = {entry["name"] for entry in REGISTRY.catalogue()}
    assert names >= {"echo", "sleep", "countdown", "primes", "fail", "send_mail", "send_mails"}


def test_a_callable_object_is_described_by_its_class(registry: Registry) -> None:
    class Charge:
        """Charge them."""

        def __call__(self, amount: int) -> int:
            return amount

    registry.add(Charge(), "charge")
    function = registry.get("charge")
    assert function.doc == "Charge them."
    assert [parameter.name for parameter in function.parameters] == ["amount"]
    with pytest.raises(ValueError, match="must be callable"):
        registry.add(SimpleNamespace(), "nothing")  # type: ignore[arg-type]
