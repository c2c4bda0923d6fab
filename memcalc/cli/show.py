"""The options of every command that ends in a footprint, and how one is shown."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.core import ParameterSource

import memcalc
from memcalc.cli.fields import reader
from memcalc.errors import InvalidWorkload, shown

if TYPE_CHECKING:
    from rich.text import Text

    from memcalc.footprint import Footprint
    from memcalc.planning.advice import Advice


class Show(NamedTuple):
    """How a footprint is printed, and what it means for the exit code."""

    as_json: bool
    check: bool
    top: int
    verdict: bool  # whether the user named a GPU, or asks whether it fits

    def __call__(self, footprint: "Footprint", advise: "Callable[[], Advice] | None" = None) -> None:
        """Print it, and where it does not fit what `advise` says; exits with 1 under --check where it does not fit."""
        fits = not self.check or footprint.fits(footprint.workload["gpu"])
        if self.as_json:
            click.echo(json.dumps(footprint.to_json()))
        else:
            from memcalc.reporting.console import rendered

            printed(rendered(footprint, verdict=self.verdict))
            if advise is not None and self.verdict and footprint.peak_reserved is not None:
                gpu = footprint.workload["gpu"]
                if not footprint.fits(gpu):
                    from memcalc.reporting.changes import advice

                    click.echo()
                    printed(advice(advise(), gpu))
        if not fits:
            raise click.exceptions.Exit(1)


def printed(text: "Text") -> None:
    """Print it as rich lays it out; rich itself would exit with 1 where the reader has left."""
    from rich.console import Console

    console = Console(highlight=False)
    with console.capture() as capture:
        console.print(text, soft_wrap=True)
    click.echo(capture.get(), nl=False)


@contextmanager
def trying_levers() -> Iterator[None]:
    """Some seconds of estimates: a terminal is told, a pipe is not."""
    from rich.console import Console

    with Console(stderr=True).status("trying levers"):
        yield


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal that names what is being done, of so many; silent in a pipe."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)

        def tell(what: str) -> None:
            bar.update(task, description=what, advance=1)

        yield tell


def footprint_options(command: Callable[..., None]) -> Callable[..., None]:
    """--json, --check and --top for a command that ends in a footprint; it takes `show` and calls it."""

    @click.option("--json", "as_json", is_flag=True, help="print the footprint as one JSON object")
    @click.option("--check", is_flag=True, help="exit with 1 if it does not fit on --gpu")
    @click.option("--top", type=reader(frozenset((int,))), default=0, metavar="N", help="list the N largest blocks")
    @click.version_option(memcalc.__version__, prog_name="memcalc", message="%(prog)s %(version)s")
    @wraps(command)
    def with_show(*, as_json: bool, check: bool, top: int, **arguments: Any) -> None:
        if not isinstance(top, int) or top < 0:
            raise InvalidWorkload(f"--top must be a whole number of at least 0, not {shown(top)}")
        named = click.get_current_context().get_parameter_source("gpu") is ParameterSource.COMMANDLINE
        command(show=Show(as_json, check, top, verdict=check or named), **arguments)

    return with_show
