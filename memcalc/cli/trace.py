"""`memcalc trace`."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from memcalc.cli.options import WorkloadCommand
from memcalc.cli.show import Show, footprint_options
from memcalc.errors import BadFile

if TYPE_CHECKING:
    from memcalc.workload import Workload

EXAMPLES = (
    "memcalc trace --model llama-3.1-8b --rank 16 --target all-linear --seq-len 2048",
    "memcalc trace --model ./my-model --peft-config ./my-adapter --amp bf16 --top 20",
    "memcalc trace --model 1.3b --method qlora --timeline ./memory.png --snapshot ./memory.pickle",
)


@click.command(cls=WorkloadCommand, examples=EXAMPLES)
@footprint_options
@click.option("--timeline", "picture", metavar="FILE", help="draw what is allocated over time (.png, .svg, .pdf)")
@click.option("--snapshot", metavar="FILE", help="write the timeline as PyTorch's memory snapshot, for its memory_viz")
@click.option("--trust-remote-code", is_flag=True, help="run modelling code that comes with the model's folder")
def trace(workload: Workload, show: Show, picture: str | None, snapshot: str | None, trust_remote_code: bool) -> None:
    """Run the real transformers and peft step without a GPU, and replay the allocator over its memory blocks."""
    for path in filter(None, (picture, snapshot)):
        _check_writable(path)
    started = time.perf_counter()
    with quiet(), _progress() as progress:
        from memcalc.recording import footprint_of, replayed
        from memcalc.tracing.record import record

        recording = record(workload, progress=progress, trust_remote_code=trust_remote_code)
        progress("replaying the allocator")
        seconds = time.perf_counter() - started
        footprint = footprint_of(workload, recording, "trace", top=show.top, seconds=seconds)
        if picture is not None:
            from memcalc.reporting.plots import save_timeline

            title = f"{workload.model.name}, {workload.method_name}, {workload.batch} × {workload.seq_len} tokens"
            save_timeline(picture, recording.timeline, replayed(workload, recording.timeline), title)
        if snapshot is not None:
            from memcalc.reporting.memory_viz import save_snapshot

            save_snapshot(snapshot, recording.timeline, replayed(workload, recording.timeline).sizes)
    show(footprint)


def _check_writable(path: str) -> None:
    """Refuse a file that cannot be written before the work, not after it."""
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.path.isdir(folder):
        raise BadFile(path, "this is a folder" if os.path.isdir(path) else "its folder does not exist")
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise BadFile(path, "cannot be written: permission denied")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Says on a terminal what is being done; silent in a pipe."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status("importing torch, transformers and peft") as status:
        yield status.update


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Libraries that are run on purpose in an unusual way neither warn nor look for anything on the network."""
    import logging
    import warnings

    offline = dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
    before = {name: os.environ.get(name) for name in offline}
    os.environ.update(offline)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
