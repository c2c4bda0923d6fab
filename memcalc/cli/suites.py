"""`memcalc profile --suite`: a file of cases, on a terminal with a bar, in a pipe without a word until the end."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from memcalc.errors import InvalidWorkload, RunFailed, shown

if TYPE_CHECKING:
    from memcalc.footprint import Footprint
    from memcalc.profiling.suite import Suite, SuiteCase
    from memcalc.profiling.suite_runner import Tally


def suite_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--suite and what goes with it."""
    for option in (
        click.option("--shared", is_flag=True, help="with --suite: measure although others use the device"),
        click.option("--retry", is_flag=True, help="with --suite: run again what has failed before"),
        click.option("--list", "list_cases", is_flag=True, help="with --suite: only show its cases"),
        click.option("--shard", metavar="I/N", help="with --suite: every N-th case, from the I-th on"),
        click.option("--suite", metavar="FILE", help="profile a file's cases, those that --out has not yet"),
    ):
        command = option(command)
    return command


def run(
    *, suite: str, shard: str | None, list_cases: bool, retry: bool, shared: bool, out: str | None,
    timeout: float | None, warmup: int, steps: int, top: int,
) -> None:  # fmt: skip
    """Run a suite; exits with 4 where a case has failed."""
    import memcalc
    from memcalc.profiling import suite_runner
    from memcalc.profiling.case import Case
    from memcalc.profiling.fork_server import LIBRARIES
    from memcalc.profiling.forking import ForkServer
    from memcalc.profiling.store import Store
    from memcalc.profiling.suite import read_suite
    from memcalc.realize import versions

    read = read_suite(suite)
    cases = suite_runner.shard(read.cases, *_part(shard))
    if list_cases:
        _list(read, cases)
        return
    if out is None:
        raise InvalidWorkload(
            "--suite needs --out FILE: there the results are kept, and what is there is not run again"
        )
    store = Store(out)
    if torn := store.mend():
        click.echo(f"{out}: the last line was torn, {torn} bytes of it are taken away; its case runs again", err=True)
    unreadable = sum(isinstance(each, Exception) for _, each in store.footprints())
    if unreadable:
        click.echo(f"{out}: {unreadable} lines are no footprints of this version: they are left as they are", err=True)
    plan = suite_runner.Plan(
        title=read.title,
        cases=cases,
        template=Case(read.cases[0].workload, warmup=warmup, steps=steps, top=top, shared=shared),
        versions=versions.installed(),
        timeout=timeout or read.timeout,
        retry=retry,
    )
    tally = suite_runner.Tally()
    try:
        with ForkServer(LIBRARIES) as server, _bar(len(cases), read.title) as (began, ended):
            suite_runner.run(plan, store, memcalc._measure, server, tally, began, ended)  # noqa: SLF001 - our own
    except KeyboardInterrupt:
        click.echo(f"stopped; {_summary(read, tally, len(cases), out)}")
        raise click.exceptions.Exit(130) from None
    finally:
        store.close()
    click.echo(_summary(read, tally, len(cases), out))
    if tally.failed:
        raise click.exceptions.Exit(RunFailed.exit_code)


def _part(text: str | None) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text or "1/1", re.ASCII)
    if match is None or int(match[1]) > int(match[2]):
        raise InvalidWorkload(f"--shard {shown(text)}: the part and the number of parts, as 1/4 to 4/4")
    return int(match[1]), int(match[2])


def _list(suite: Suite, cases: Any) -> None:
    from memcalc.reporting.console import printable

    click.echo(printable(f"{suite.title}: {suite.purpose}"))
    click.echo(f"{len(cases)} cases, about {suite.minutes:g} minutes in all, up to {suite.memory_gib:g} GiB")
    for case in cases:
        click.echo(printable(f"  {case.name}{'  (to the limit)' if case.to_the_limit else ''}"))


def _summary(suite: Suite, tally: Tally, total: int, out: str) -> str:
    from memcalc.reporting.console import printable

    parts = [f"{count} {name.replace('_', ' ')}" for name, count in sorted(tally.now.items())]
    before = sum(tally.before.values())
    if before:
        parts.append(f"{before} there already")
    left = total - sum(tally.now.values()) - before
    if left:
        parts.append(f"{left} not run")
    if tally.failed:
        parts.append(f"{tally.failed} failed (--retry runs them again)")
    return printable(f"{suite.title}: {total} cases: {', '.join(parts)}; {out}")


@contextlib.contextmanager
def _bar(
    total: int, title: str
) -> Iterator[tuple[Callable[[SuiteCase], None], Callable[[SuiteCase, Footprint | None], None]]]:
    if not sys.stderr.isatty():
        yield (lambda _: None), (lambda *_: None)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    from memcalc.reporting.console import printable

    case_column = TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
    columns = (BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(), case_column)
    with Progress(*columns, console=Console(stderr=True), expand=True) as progress:
        task = progress.add_task(escape(printable(title)), total=total)

        def began(case: SuiteCase) -> None:
            progress.update(task, description=escape(printable(case.name)))

        def ended(case: SuiteCase, footprint: Footprint | None) -> None:
            progress.advance(task)
            if footprint is not None and footprint.outcome != "ok":
                reason = footprint.unavailable.get("peak_allocated", str(footprint.outcome))
                progress.console.print(escape(printable(f"{case.name}: {reason}")), style="red", highlight=False)

        yield began, ended
