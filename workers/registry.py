"""The registry: which functions may be named on the wire, under what name, how they are run; `@task`, dotted names, the catalogue.

Only what is registered here can be named by a request: nothing from the wire is imported or looked up by attribute. Modules and dotted
names come from settings. How arguments are bound lives in `workers/binding.py`; how a function is run, in `workers/executor.py`.
The one `REGISTRY` of a process is filled while it boots, and read-only after `freeze()`.
"""

import importlib
import inspect
import pkgutil
import re
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

from app.errors import SettingsError, UnknownFunction
from workers.binding import Bound, Parameter, binder_of
from workers.options import Options, parse_options

__all__ = ["REGISTRY", "Function", "Options", "Registry", "task"]

_NAME = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*", re.ASCII)
_LONGEST_NAME = 100
_BUILT_IN = "workers.tasks"
_HERE = Path(__file__).parent

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Function:
    """A registered function. `target` is `module:qualname`, by which another process finds it."""

    name: str
    call: Callable[..., Any]
    doc: str
    parameters: tuple[Parameter, ...]
    options: Options
    is_generator: bool
    target: str
    bind: Callable[[object], Bound]
    """`args` as they came → what to call with; raises `BadArguments` (see `Binder.bind`)."""

    def describe(self) -> dict[str, Any]:
        """Its entry in the catalogue, in JSON types."""
        parameters = [parameter.describe() for parameter in self.parameters]
        return {"name": self.name, "doc": self.doc, "params": parameters, "options": self.options.describe()}


class Registry:
    """Functions by the name that they have on the wire."""

    def __init__(self) -> None:
        self._functions: dict[str, Function] = {}
        self._frozen = False

    @overload
    def task(self, function: AnyFunction, /) -> AnyFunction: ...

    @overload
    def task(self, function: None = None, /, *, name: str | None = None, **options: Any) -> Callable[[AnyFunction], AnyFunction]: ...

    def task(self, function: Callable[..., Any] | None = None, /, *, name: str | None = None, **options: Any) -> Any:
        """Make a function a task: `@task`, or `@task(run_in="thread", time_limit=60)`. The function itself stays as it is.

        `name`: what it is called on the wire (the function's own name). The other options are the fields of `Options`.
        Raises `ValueError` for what cannot be used, `SettingsError` where the name is taken by another function.
        """
        if function is not None:
            self.add(function, name)
            return function
        chosen = _options(options)

        def register(function: AnyFunction) -> AnyFunction:
            self.add(function, name, chosen)
            return function

        return register

    def add(self, call: Callable[..., Any], name: str | None = None, options: Options | None = None, target: str = "") -> Function:
        """Register any callable. Raises as `task` does."""
        function = _function(call, name, options or Options(), target)
        known = self._functions.get(function.name)
        if self._frozen:
            raise SettingsError(f"{function.target}: tasks are registered while the process boots; import its module from --tasks")
        if known is not None and known.call != call:  # a bound method is another object each time
            raise SettingsError(
                f"two functions are called {function.name}: {known.target} and {function.target}; give one a name of its own"
            )
        self._functions[function.name] = function
        return function

    def get(self, name: str) -> Function:
        """Raises `UnknownFunction`."""
        function = self._functions.get(name)
        if function is None:
            raise UnknownFunction(name)
        return function

    def find(self, call: Callable[..., Any]) -> Function | None:
        """As what a callable is registered, the first of its names; None where it is not."""
        return next((function for function in self._functions.values() if function.call == call), None)

    def catalogue(self) -> list[dict[str, Any]]:
        """What `{"describe": true}` lists, by name."""
        return [function.describe() for _, function in sorted(self._functions.items())]

    def load(self, modules: Iterable[str] = (), dotted: Iterable[str] = ()) -> None:
        """Import the tasks that come with us, then `modules`, then register the functions of `dotted` (see `add_dotted`).

        Raises `SettingsError` with the module and the reason, whatever its import raised.
        """
        built_in = _import(_BUILT_IN)
        for module in pkgutil.iter_modules(built_in.__path__, _BUILT_IN + "."):
            _import(module.name)
        for name in modules:
            _import(name)
        for text in dotted:
            self.add_dotted(text)

    def add_dotted(self, text: str) -> Function:
        """Register a function that is left untouched: `[NAME=]module:function[;option=value]…`, from the settings.

        `legacy.billing:charge_all` is called `charge_all`; `charge=legacy.billing:charge_all;run_in=thread;retryable=true` is `charge`.
        The function may be any callable (`module:Class.method` too); options are those of `Options`, but for `retry_on`.
        """
        where, _, options = text.partition(";")
        name, _, target = where.rpartition("=")
        module, colon, path = target.strip().partition(":")
        if not colon or not module or not path:
            raise SettingsError(f"task {text!r}: give module:function, as in legacy.billing:charge_all")
        call: Any = _import(module)
        for attribute in path.split("."):
            if not hasattr(call, attribute):
                raise SettingsError(f"task {text!r}: {module} has no {path}")
            call = getattr(call, attribute)
        try:
            return self.add(call, name.strip() or path.rpartition(".")[2], parse_options(options, f"task {text!r}"), f"{module}:{path}")
        except ValueError as error:
            raise SettingsError(f"task {text!r}: {error}") from None

    def freeze(self) -> None:
        """Take no more functions: the process has booted."""
        self._frozen = True


def _function(call: Callable[..., Any], name: str | None, options: Options, target: str) -> Function:
    if not callable(call):
        raise ValueError(f"a task must be callable, not {call!r}")
    name = str(getattr(call, "__name__", type(call).__name__)) if name is None else name
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise ValueError(f"the name {name[:_LONGEST_NAME]!r} cannot be used: letters, digits, _ and dots, at most {_LONGEST_NAME}")
    if _is_coroutine(call):
        raise ValueError(f"{name} is a coroutine function; write it as plain blocking code, or run asyncio.run in a thread")
    target = target or f"{call.__module__}:{getattr(call, '__qualname__', name)}"
    if options.run_in == "process" and ("<" in target or target.startswith("__main__:")):
        raise ValueError(f"{name} cannot run in a process: {target} cannot be imported there; define it at the top of a module")
    binder = binder_of(call)
    return Function(name, call, _first_paragraph(call), binder.parameters, options, _is_generator(call), target, binder.bind)


def _options(options: dict[str, Any]) -> Options:
    retry_on = options.get("retry_on", ())
    try:
        return Options(**{**options, "retry_on": (retry_on,) if isinstance(retry_on, type) else retry_on})
    except TypeError:
        unknown = sorted(options.keys() - Options.__dataclass_fields__.keys())
        raise ValueError(f"task has no option {', '.join(unknown)}; it has name, {', '.join(Options.__dataclass_fields__)}") from None


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [frame for frame in frames if not _is_ours(frame.filename)]
        where = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
        reason = error.message if isinstance(error, SettingsError) else f"{type(error).__name__}: {error}"
        raise SettingsError(f"cannot load the task module {module}: {reason}{where}") from error


def _is_ours(filename: str) -> bool:
    """Whether this line is not of the module that was loaded: the import system's, a generated one, or of the registry."""
    return "importlib" in filename or filename.startswith("<") or Path(filename).parent == _HERE


def _first_paragraph(call: Callable[..., Any]) -> str:
    own = call if inspect.isroutine(call) or inspect.isclass(call) else getattr(call, "func", type(call))
    return " ".join((inspect.getdoc(own) or "").strip().partition("\n\n")[0].split())


def _is_coroutine(call: Any) -> bool:
    return any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in (call, type(call).__call__))


def _is_generator(call: Any) -> bool:
    return inspect.isgeneratorfunction(call) or inspect.isgeneratorfunction(type(call).__call__)


REGISTRY = Registry()
task = REGISTRY.task
