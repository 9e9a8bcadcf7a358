"""The description of the HTTP API, in OpenAPI 3.1: fixed but for the functions, of which each has a schema made from the catalogue."""

from collections.abc import Mapping
from typing import Any, Final

from app.dispatch import MAX_LISTED
from app.gateway import problems
from app.gateway.schemas import Arguments, Schema
from app.gateway.wanted import MOST_NAME
from app.journal import LOOKED_AT
from app.messages import IDENTIFIER, MAX_DELAY, MAX_PRIORITY, State

_ID: Final = {"type": "string", "pattern": f"^{IDENTIFIER.pattern.removesuffix(chr(92) + 'Z')}$"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_JSON: Final = "application/json"
_TASK_ID: Final = {"name": "id", "in": "path", "required": True, "schema": _ID}

_COMMON: Mapping[str, Schema] = {
    "id": {**_ID, "description": "Sent again, it never runs a second time: the answer is about the same task."},
    "priority": {"type": "integer", "minimum": -MAX_PRIORITY, "maximum": MAX_PRIORITY, "default": 0},
    "delay": {"type": "number", "minimum": 0, "maximum": MAX_DELAY, "default": 0, "description": "Seconds before it may begin."},
}

_PREFER: Final = {
    "name": "Prefer",
    "in": "header",
    "description": "wait=10: wait for the end of the task, for 10 seconds (60 at most).",
    "schema": {"type": "string"},
}
_APPLIED: Final = {"Preference-Applied": {"description": "How long it waits at most.", "schema": {"type": "string"}}}
_SAID: Final = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]{1,15}$"},
        "data": {"type": "string", "contentMediaType": _JSON, "description": "What the WebSocket would say."},
    },
}

_ERROR: Final = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
}

_TASK: Final = {
    "type": "object",
    "required": ["id", "function", "state", "seq", "attempt"],
    "properties": {
        "id": _ID,
        "function": {"type": "string"},
        "state": {"enum": [state.value for state in State]},
        "seq": {**_COUNT, "description": "The number of the last event."},
        "attempt": {**_COUNT, "description": "0 where it has not begun."},
        "accepted_at": {"type": "number", "description": "Seconds since 1970; in lists."},
        "progress": {"type": "object", "description": "How far it says it is: done, total, note."},
        "result": {"description": "Where it succeeded."},
        "error": {**_ERROR, "description": "Where it is over and did not succeed."},
    },
}

_PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What the sender can do about it."},
        "code": {"type": "string"},
        "retry_after": {"type": "number", "description": "Seconds."},
    },
}


def document(functions: list[dict[str, Any]], arguments: Mapping[str, Arguments], max_body: int) -> dict[str, Any]:
    """The whole description."""
    calls = {f"call.{entry['name']}": _call(entry, arguments[entry["name"]]) for entry in functions}
    schemas = {"task": _TASK, "problem": _PROBLEM, "call": _any_call(calls), **calls}
    info = {"title": "Handoff", "version": "1", "description": "Hands slow work to task workers. The same tasks are reached by WebSocket."}
    responses = {code: _problem(kind.title) for code, kind in problems.PROBLEMS.items()}
    return {"openapi": "3.1.0", "info": info, "paths": _paths(max_body), "components": {"schemas": schemas, "responses": responses}}


def _call(entry: dict[str, Any], arguments: Arguments) -> Schema:
    return {
        "type": "object",
        "description": entry.get("doc", ""),
        "required": ["function", "args"] if arguments.required else ["function"],
        "properties": {"function": {"const": entry["name"]}, "args": arguments.schema(), **_COMMON},
        "additionalProperties": False,
    }


def _any_call(calls: Mapping[str, Schema]) -> Schema:
    references = {name: f"#/components/schemas/{name}" for name in calls}
    if not references:
        return {"type": "object", "required": ["function"], "properties": {"function": {"type": "string"}, "args": {}, **_COMMON}}
    mapping = {name.removeprefix("call."): reference for name, reference in references.items()}
    one_of = [{"$ref": reference} for reference in references.values()]
    return {"oneOf": one_of, "discriminator": {"propertyName": "function", "mapping": mapping}}


def _paths(max_body: int) -> dict[str, Any]:
    return {
        "/tasks": {"get": _LIST, "post": _submit(max_body)},
        "/tasks/{id}": {"parameters": [_TASK_ID], "get": _SHOW, "delete": _CANCEL},
        "/tasks/{id}/events": {"parameters": [_TASK_ID], "get": _EVENTS},
        "/functions": {"get": _FUNCTIONS},
        "/openapi.json": {"get": _OPENAPI},
    }


def _problem(title: str) -> dict[str, Any]:
    return {"description": title, "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/problem"}}}}


def _answers(status: int, description: str, schema: Schema, **more: Any) -> dict[str, Any]:
    """One answer that is wanted, and the problems: any of the codes may come."""
    wanted = {"description": description, "content": {_JSON: {"schema": schema}}, **more}
    return {str(status): wanted, "default": _problem("A problem; see components/responses for each code")}


def _submit(max_body: int) -> dict[str, Any]:
    task = {"$ref": "#/components/schemas/task"}
    key = {"type": "string", "pattern": '^("[A-Za-z0-9_-]{1,64}"|[A-Za-z0-9_-]{1,64})$'}
    where = {"Location": {"description": "The path of the task.", "schema": {"type": "string", "format": "uri-reference"}}}
    return {
        "operationId": "submit",
        "summary": "Submit a task",
        "parameters": [
            {"name": "Idempotency-Key", "in": "header", "description": "The id, where the body has none.", "schema": key},
            _PREFER,
        ],
        "requestBody": {
            "required": True,
            "description": f"At most {max_body} bytes.",
            "content": {_JSON: {"schema": {"$ref": "#/components/schemas/call"}}},
        },
        "responses": {
            **_answers(202, "Accepted: it is kept, and gets exactly one end.", task, headers={**where, **_APPLIED}),
            **_answers(200, "It is over: it was sent before, or it was waited for.", task, headers={**where, **_APPLIED}),
        },
    }


_TASK_REFERENCE: Final = {"$ref": "#/components/schemas/task"}
_LIST: Final = {
    "operationId": "list",
    "summary": "One's own tasks, newest first",
    "parameters": [
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": MAX_LISTED, "default": 100}},
        {
            "name": "before",
            "in": "query",
            "description": "The number that came with an earlier answer, which goes on from there.",
            "schema": {"type": "integer", "minimum": 0, "maximum": 10**15 - 1},
        },
        {"name": "state", "in": "query", "schema": {"enum": [state.value for state in State]}},
        {"name": "function", "in": "query", "schema": {"type": "string", "maxLength": MOST_NAME}},
        {"name": "id", "in": "query", "description": "What the ids begin with.", "schema": _ID},
    ],
    "responses": _answers(
        200,
        f"The tasks, as far as {LOOKED_AT} were looked at; where there may be more, `before` says where the next search goes on.",
        {
            "type": "object",
            "required": ["tasks"],
            "properties": {"tasks": {"type": "array", "items": _TASK_REFERENCE}, "before": _COUNT},
        },
    ),
}
_SHOW: Final = {
    "operationId": "show",
    "summary": "Where a task stands",
    "parameters": [_PREFER],
    "responses": _answers(200, "The task.", _TASK_REFERENCE, headers=_APPLIED),
}
_CANCEL: Final = {
    "operationId": "cancel",
    "summary": "Cancel a task",
    "responses": _answers(202, "The task; one that is over stays as it is, the end of another is still to come.", _TASK_REFERENCE),
}
_EVENTS: Final = {
    "operationId": "events",
    "summary": "What is said of a task, as it is said",
    "parameters": [
        {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "The number of the last event that was seen: those after it are sent.",
            "schema": {"type": "string", "pattern": "^[0-9]{1,15}$"},
        },
        _PREFER,
    ],
    "responses": {
        "200": {
            "description": "Server-Sent Events: `id` is the number of an event, `data` the event. It ends after the final one.",
            "headers": _APPLIED,
            "content": {"text/event-stream": {"schema": _SAID}},
        },
        "204": {"description": "It is over, and everything was seen."},
        "default": _problem("A problem; see components/responses for each code"),
    },
}
_FUNCTIONS: Final = {
    "operationId": "functions",
    "summary": "The functions that can be called",
    "responses": _answers(
        200,
        "The catalogue.",
        {"type": "object", "required": ["functions"], "properties": {"functions": {"type": "array", "items": {"type": "object"}}}},
    ),
}
_OPENAPI: Final = {
    "operationId": "description",
    "summary": "This description",
    "responses": _answers(200, "OpenAPI 3.1.", {"type": "object"}),
}
