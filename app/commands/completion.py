"""`run.py completion`: the script that makes a shell complete commands, flags, functions and their parameters."""

import re
from types import MappingProxyType

import click
from click.shell_completion import get_completion_class

PROGRAM, VARIABLE = "run.py", "_RUN_PY_COMPLETE"
SHELLS = ("bash", "zsh", "fish")

_BY_NAME = f" {PROGRAM})"
_AS_TYPED = MappingProxyType({"bash": _BY_NAME, "zsh": " ${~words[1]})", "fish": " (commandline -opc)[1])"})
"""What asks for completions: the command as it was typed, which need not be in the PATH. click's script for bash does so by itself."""
_IN_PATH = re.compile(r"^ *\(\( ! \$\+commands.*return 1\n", re.MULTILINE)

EPILOG = """\
\b
Put one of these where your shell reads it at the start:
  source <(./run.py completion bash)      # ~/.bashrc
  source <(./run.py completion zsh)       # ~/.zshrc, after compinit
  ./run.py completion fish | source       # ~/.config/fish/config.fish

It completes `./run.py` and `run.py` (in the PATH), with the Python that these run with. Names of functions and parameters are asked of the
gateway, for half a second at most."""


@click.command(epilog=EPILOG, short_help="completion for bash, zsh or fish")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> int:
    """Print the script that lets SHELL complete what is written after run.py."""
    script = get_completion_class(shell)
    assert script is not None
    source = script(context.find_root().command, {}, PROGRAM, VARIABLE).source()
    click.echo(_IN_PATH.sub("", source.replace(_BY_NAME, _AS_TYPED[shell])))
    return 0
