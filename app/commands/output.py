"""What a command prints: values as JSON, texts without anything that a terminal would obey, tables and bars where somebody looks at them.

Results go to stdout, everything else to stderr. The library that draws is loaded where something is really drawn, inside the functions
here: loading it takes longer than the rest of a command.
"""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from app import wire
from app.log import one_line

if TYPE_CHECKING:
    from app.commands.drawn import Bar

Row = Sequence[str]
_OBEYED = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What stands in JSON as it is and a terminal may take for an order: C1 controls, direction marks, line separators."""

_NOT_ASCII = re.compile("[^\x00-\x7f]")


def to_json(value: Any) -> str:
    """The value on one line; anywhere but in strings JSON has none of the characters that are escaped here."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", wire.encode_decoded(value).decode())


def print_json(value: Any) -> None:
    """One line, at once: a script may be waiting for it. In ASCII alone where stdout has no UTF-8: it stays JSON."""
    text = to_json(value)
    if not sys.stdout.encoding.lower().startswith("utf"):
        text = _NOT_ASCII.sub(_escaped, text)
    print(text, flush=True)


def _escaped(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def print_error(text: str) -> None:
    """One line for people, on stderr."""
    print(f"handoff: {one_line(text)}", file=sys.stderr, flush=True)


def print_note(text: str) -> None:
    """As `print_error`, where a person looks at it, and nothing otherwise."""
    if sys.stderr.isatty():
        print_error(text)


def print_table(columns: Row, rows: Sequence[Row]) -> None:
    """A drawn table on a terminal; elsewhere one row a line, with tabs between its cells and no head."""
    if sys.stdout.isatty():
        from app.commands.drawn import draw_table

        draw_table(columns, [[one_line(cell) for cell in row] for row in rows])
        return
    for row in rows:
        print("\t".join(one_line(cell) for cell in row))


@contextmanager
def live_table(columns: Row) -> Iterator[Callable[[Sequence[Row]], None]]:
    """A function that draws a table in the place of the one before."""
    from app.commands.drawn import redrawn

    with redrawn(columns) as redraw:
        yield lambda rows: redraw([[one_line(cell) for cell in row] for row in rows])


class Progress(AbstractContextManager["Progress"]):
    """A bar on stderr while there is progress to show, where that is a terminal."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: Bar | None = None

    def show(self, event: dict[str, Any]) -> None:
        """Take a progress event."""
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            from app.commands.drawn import Bar

            self._bar = Bar(one_line(self._title))
        self._bar.show(event.get("done") or 0, event.get("total"), one_line(event.get("note") or ""))

    def hide(self) -> None:
        """Make room for a line."""
        if self._bar is not None:
            self._bar.hide()

    def __exit__(self, *_: object) -> None:
        self.hide()
