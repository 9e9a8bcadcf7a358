"""`run.py completion`: the script that makes a shell complete commands, flags, functions and their parameters."""

import click
from click.shell_completion import get_completion_class

PROGRAM, VARIABLE = "run.py", "_RUN_PY_COMPLETE"
SHELLS = ("bash", "zsh", "fish")

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
    click.echo(script(context.find_root().command, {}, PROGRAM, VARIABLE).source())
    return 0
