"""Tables and bars, drawn with rich. Texts come here already without control characters, and none of them is read as markup."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

Row = Sequence[str]


class Bar:
    """One task's progress on stderr; hidden, it leaves nothing behind, and the next `show` draws it again."""

    def __init__(self, title: str) -> None:
        texts = [TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[note]}")]
        columns = (SpinnerColumn(), texts[0], BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), texts[1])
        console = Console(stderr=True)
        self._progress = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
        self._task = self._progress.add_task(title, total=None, note="")

    def show(self, done: float, total: float | None, note: str) -> None:
        """So much of so much; `total` None where nobody knows."""
        self._progress.update(self._task, completed=done, total=total, note=note)
        self._progress.start()

    def hide(self) -> None:
        """Take it off the terminal."""
        self._progress.stop()


def draw_table(columns: Row, rows: Sequence[Row]) -> None:
    """On stdout."""
    Console().print(_table(columns, rows))


@contextmanager
def redrawn(columns: Row) -> Iterator[Callable[[Sequence[Row]], None]]:
    """A function that draws a table in the place of the one before; the last one stays."""
    with Live(_table(columns, ()), auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        yield lambda rows: live.update(_table(columns, rows), refresh=True)


def _table(columns: Row, rows: Sequence[Row]) -> Table:
    table = Table(*columns, box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
