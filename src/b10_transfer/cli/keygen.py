"""``b10-compile-cache keygen``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..errors import CacheError
from ..repository.signing import SigningKey
from .console import ExitCode


@click.command("keygen")
@click.argument("name", metavar="PATH")
@click.pass_context
def command(context: click.Context, name: str) -> None:
    """Make a key pair for signed packs.

    PATH is the private key, for the pods that save. PATH.pub is the public key, for all pods.

    \b
        b10-compile-cache keygen builder.key
        on pods that save       B10_SIGNING_KEY=/keys/builder.key
        on all pods             B10_TRUSTED_KEYS=/keys/builder.key.pub

    Loads then ignore packs that no trusted key signed. To change keys, trust both for a while. Anyone who has the
    private key can run code in every pod that trusts it: keep it with your secrets.
    """
    path = Path(name)
    if not path.name or name.endswith(("/", "/.", "/..")) or path.name == "..":
        raise click.UsageError(f"PATH={name!r} names no file; give the path of a new file, for example builder.key")
    public_path = path.with_name(f"{path.name}.pub")
    try:
        key = SigningKey.generate()
        # Never replace a key: packs that it signed could no longer be verified.
        _write(path, key.private_text(), 0o600)
        try:
            _write(public_path, key.public_text(), 0o644)
        except OSError:
            path.unlink()
            raise
    except (OSError, CacheError) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
        click.echo(f"no key was made: {reason}", err=True)
        context.exit(ExitCode.ERROR)
    click.echo(f"{path} (private) and {public_path}: {key.public_text()}")


def _write(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(f"{text}\n")
        os.fchmod(file.fileno(), mode)
