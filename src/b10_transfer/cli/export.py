"""``b10-compile-cache export``."""

from __future__ import annotations

from pathlib import Path

import click

from ..concurrency.deadline import Deadline
from ..config import Config
from ..environment import detect
from ..errors import printable
from ..inspection.bounded import bounded, open_store
from ..maintenance.export import CopyResult, export
from .console import (
    ExitCode,
    deadline_option,
    json_option,
    print_copied,
    print_json,
    progress,
    report_errors,
    set_up_logging,
    store_options,
)


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--oci", is_flag=True, help="FILE is a new folder: an OCI image layout, for registries.")
@click.option("--all-environments", is_flag=True, help="All environments of the namespace, not only this pod's.")
@store_options
@deadline_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    file: Path,
    oci: bool,
    all_environments: bool,
    store: str | None,
    namespace: str | None,
    deadline_s: float | None,
    as_json: bool,
) -> None:
    """Write the packs for this pod to one FILE.

    Use it to put a warm cache into an image, or to copy packs to a network without the store.

    \b
        b10-compile-cache export warm.tar
    \b
    In an image's Dockerfile:
        COPY warm.tar /tmp/
        RUN b10-compile-cache import /tmp/warm.tar --store /opt/compile-cache && rm /tmp/warm.tar
        ENV B10_STORE=/opt/compile-cache B10_READ_ONLY=1

    \b
    Or as an image of its own, which Kubernetes can mount as a volume:
        b10-compile-cache export --oci warm
        skopeo copy oci:warm docker://registry.example.com/warm:1

    It checks every byte, and leaves out packs that are damaged, untrusted, recalled or pruned. The file is a tar with
    the store's own layout. Exits with 3, and writes no file, if there was nothing to write.
    """
    set_up_logging()
    with report_errors(as_json=as_json), progress() as observe:

        def work(deadline: Deadline) -> list[CopyResult]:
            config = Config.from_environment(store=store, namespace=namespace)
            own = detect().id

            def wanted(found: str, environment_id: str) -> bool:
                return found == config.namespace and (all_environments or environment_id == own)

            with open_store(config, deadline) as opened:
                return export(opened, config, deadline, file.absolute(), wanted, oci=oci)

        results = bounded("export", work, deadline_s=deadline_s, observe=observe)
    if as_json:
        print_json(results)
    else:
        print_copied(results, f"to {file}")
    if any(one.is_done for one in results):
        context.exit(ExitCode.OK)
    whose, command = ("in this namespace", "ls --packs") if all_environments else ("for this pod", "explain")
    why = f"the store has no usable pack {whose}; `b10-compile-cache {command}` says why"
    click.echo(printable(f"nothing to export to {file}: {why}"), err=True)
    context.exit(ExitCode.NOTHING)
