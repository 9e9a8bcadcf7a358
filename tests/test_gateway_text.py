"""Text and numbers through every path: browser, gateway, journal, worker, function, and back; not a character is lost or changed."""

import json
import uuid
from email import message_from_bytes
from email.policy import default
from typing import Any

import pytest

from tests.effects import check_story, effects, said_of
from tests.harness import Server, WsClient

ARABIC = "مرحباً بالعالم — إشعار رقم ٤٢"
EMOJI = "👩🏽‍🚀🎉 \U0010ffff \u202e\x00\x7f"
TEXTS = (ARABIC, EMOJI, "\u2028 'single' \"double\" \\ </script>", "")


FLAGS = ("--tasks", "tests.sample_tasks")


@pytest.mark.parametrize("number", [2**53 + 1, 2**63, -(2**64), 10**100 + 7, -(10**4000) + 1, 0.1, 1e-320, 1.7976931348623157e308, -0.0])
def test_numbers_are_exact(client: WsClient, number: Any) -> None:
    client.send({"id": "n" + uuid.uuid4().hex, "function": "echo", "args": {"n": number, "list": [number]}, "events": "final"})
    result = client.receive()["result"]
    assert repr(result) == repr({"n": number, "list": [number]})
    assert repr(client.ask({"ping": number})["pong"]) == repr(number)


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
@pytest.mark.parametrize("way", ["greenlet", "thread", "process"])
def test_text_passes_every_path_unharmed(server: Server, client: WsClient, way: str, text: str) -> None:
    task_id = f"{way}-{uuid.uuid4().hex}"
    client.send({"id": task_id, "function": f"say_in_{way}", "args": {"text": text}})
    client.final(task_id, 20)
    events = said_of(client.messages, task_id)
    check_story(events)
    assert [event.get("note") or event.get("value") or event.get("result") or "" for event in events[2:]] == [text] * 3
    with WsClient(server.ws_url) as other:
        other.send({"id": task_id, "attach": 0})
        other.final(task_id)
        assert other.messages == events
        other.send(
            json.dumps({"id": task_id, "function": f"say_in_{way}", "args": {"text": text}}, ensure_ascii=False)
        )  # the same, escaped or not
        assert other.final(task_id)["event"] == "succeeded"
    assert len(effects(server, task_id)) == 1


def test_a_mail_keeps_its_text(server: Server, client: WsClient) -> None:
    text = f"{ARABIC}\n{EMOJI.replace(chr(0), '')}\n"
    args = {"from": "a@example.org", "to": "b@example.org", "subject": ARABIC + "🎉", "contents": text}
    client.send({"id": "mail", "function": "send_mail", "args": args, "events": "final"})
    assert client.receive()["result"] == {"sent": 1}
    (path,) = [path for path in server.data_dir.rglob("new/*") if path.is_file()]
    mail = message_from_bytes(path.read_bytes(), policy=default)
    assert mail["Subject"] == ARABIC + "🎉"
    assert mail.get_content().replace("\r\n", "\n") == text


def test_an_error_keeps_its_text(client: WsClient) -> None:
    client.send({"id": "e" + uuid.uuid4().hex, "function": "fail", "args": [ARABIC + EMOJI], "events": "final"})
    assert client.receive()["error"]["message"] == f"RuntimeError: {ARABIC}{EMOJI}"
