"""Settings: which source wins, what is refused, and that one table says it all."""

import dataclasses
from pathlib import Path

import pytest

from app.address import Address
from app.errors import SettingsError
from app.settings import Settings, load, parser
from app.table import TABLE


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str, name: str = "handoff.toml") -> None:
    Path(name).write_text(text, encoding="utf-8")


def test_the_defaults_are_those_that_scripts_rely_on() -> None:
    settings = load([], {})
    assert (settings.ws, settings.text) == (Address("127.0.0.1", 8080), Address("127.0.0.1", 12345))
    assert (settings.concurrency, settings.process_slots, settings.data_dir, settings.graceful) == (100, 1, Path("var").absolute(), 10.0)
    assert (settings.max_message, settings.max_line, settings.max_unfinished) == (65536, 1048576, 2000)
    assert (settings.pool, settings.tasks, settings.task) == ((), (), ())
    assert settings.given == frozenset()
    assert settings.run_dir == Path("var/run").absolute()


def test_the_table_and_the_dataclass_have_the_same_names() -> None:
    assert [setting.name for setting in TABLE] == [
        field.name for field in dataclasses.fields(Settings) if field.name not in ("given", "secret")
    ]


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default() -> None:
    write("workers = 2\nconcurrency = 2\nprocess_slots = 2")
    settings = load(["--workers", "4"], {"HANDOFF_WORKERS": "3", "HANDOFF_CONCURRENCY": "3"})
    assert (settings.workers, settings.concurrency, settings.process_slots, settings.graceful) == (4, 3, 2, 10.0)
    assert settings.given == {"workers", "concurrency", "process_slots"}


@pytest.mark.parametrize(
    ("argv", "environ", "text"),
    [
        (["--pool", "a:1", "--pool", "b:2,c:3"], {}, ""),
        ([], {"HANDOFF_POOL": "a:1, b:2 ,c:3"}, ""),
        ([], {}, 'pool = ["a:1", "b:2", "c:3"]'),
        ([], {}, 'pool = "a:1,b:2,c:3"'),
    ],
)
def test_several_values_may_be_given_in_every_source(argv: list[str], environ: dict[str, str], text: str) -> None:
    write(text)
    assert load(argv, environ).pool == (Address("a", 1), Address("b", 2), Address("c", 3))


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load([], {"HANDOFF_WORKERS": "", "HANDOFF_POOL": ""}).given == frozenset()


def test_another_file_may_be_named_by_flag_or_variable() -> None:
    write("workers = 7", "other.toml")
    write("workers = 8")
    assert load(["--config", "other.toml"], {"HANDOFF_CONFIG": "none.toml"}).workers == 7
    assert load([], {"HANDOFF_CONFIG": "other.toml"}).workers == 7


def test_mail_goes_where_the_usual_variable_says_and_ours_wins() -> None:
    assert load([], {"SMTP_URL": "smtp://a"}).smtp_url == "smtp://a"
    assert load([], {"HANDOFF_SMTP_URL": "smtp://b", "SMTP_URL": "smtp://a"}).smtp_url == "smtp://b"


@pytest.mark.parametrize(("text", "size"), [("4096", 4096), ("64KiB", 65536), ("2mib", 2097152), ("2 MiB", 2097152)])
def test_a_size_may_have_a_unit(text: str, size: int) -> None:
    assert load(["--max-message", text], {}).max_message == size


@pytest.mark.parametrize(("text", "value"), [("tracebacks = true", True), ("tracebacks = false", False), ('tracebacks = "on"', True)])
def test_a_switch_in_the_file_is_a_toml_boolean_or_a_word(text: str, value: bool) -> None:
    write(text)
    assert load([], {}).tracebacks is value


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--workers", "0"),
        ("--workers", "100000"),
        ("--workers", "many"),
        ("--workers", "9" * 5000),
        ("--concurrency", "-1"),
        ("--graceful", "nan"),
        ("--graceful", "inf"),
        ("--graceful", "-1"),
        ("--hang-limit", "0"),
        ("--ws", "nowhere"),
        ("--ws", "127.0.0.1:99999"),
        ("--text", "unix:"),
        ("--text", "fd:"),
        ("--text", "fd:-1"),
        ("--text", "fd:0x1"),
        ("--pool", "fd:0"),
        ("--name", "a/b"),
        ("--name", "a b"),
        ("--name", "a" * 65),
        ("--pool", "host"),
        ("--max-message", "64 potatoes"),
        ("--tracebacks", "perhaps"),
        ("--log-level", "loud"),
        ("--handler", "a\nb"),
        ("--origins", "*"),
        ("--origins", "null"),
        ("--origins", "example.org"),
        ("--origins", "https://"),
        ("--origins", "https://*.example.org"),
        ("--origins", "https://Example.org"),
        ("--origins", "https://example.org/app"),
        ("--origins", "https://user@example.org"),
        ("--data-dir", ""),
    ],
)
def test_a_bad_value_is_refused_in_one_line_that_names_where_it_came_from(flag: str, text: str) -> None:
    name = flag.removeprefix("--").replace("-", "_")
    with pytest.raises(SettingsError) as by_flag:
        load([flag, text], {})
    assert flag in by_flag.value.message
    assert "\n" not in by_flag.value.message
    if text:
        with pytest.raises(SettingsError, match=f"HANDOFF_{name.upper()}"):
            load([], {f"HANDOFF_{name.upper()}": text})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speed = 1", "no setting is called 'speed'"),
        ("workers = [1, 2]", "workers"),
        ("workers = 1.5", "workers"),
        ("workers = 1979-05-27", "workers"),
        ("workers = true", "workers"),
        ("[workers]\ncount = 1", "workers"),
        ("workers =", "handoff.toml"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_name(text: str, message: str) -> None:
    write(text)
    with pytest.raises(SettingsError, match=message) as refused:
        load([], {})
    assert "handoff.toml" in refused.value.message


def test_a_named_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"none\.toml"):
        load(["--config", "none.toml"], {})


def test_unknown_flags_and_variables_are_refused() -> None:
    with pytest.raises(SettingsError, match="--speed"):
        load(["--speed", "9"], {})
    with pytest.raises(SettingsError, match="HANDOFF_SPEED"):
        load([], {"HANDOFF_SPEED": "9"})


def test_the_help_shows_every_flag_with_its_variable_and_default() -> None:
    text = " ".join(parser().format_help().split())
    for setting in TABLE:
        assert setting.flag in text
        assert f"[{setting.variable}]" in text
        assert setting.default in text
