"""``b10-compile-cache completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a completion script for a shell.

    \b
    Install it:
        bash   b10-compile-cache completion bash >> ~/.bashrc
        zsh    b10-compile-cache completion zsh >> ~/.zshrc
        fish   b10-compile-cache completion fish > ~/.config/fish/completions/b10-compile-cache.fish
    """
    # The script calls this command for the words, so it stays valid when subcommands change.
    complete = get_completion_class(shell)
    assert complete is not None
    root = context.find_root().command
    click.echo(complete(root, {}, "b10-compile-cache", "_B10_COMPILE_CACHE_COMPLETE").source())
