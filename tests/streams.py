"""Whether estimate's stream of births and deaths is trace's, block by block, over the case space.

python -m tests.streams --random 100 --out reports/streams.md     every pair of values, and random cases
python -m tests.streams --only "qwen2 lora ckpt fp16"             one case, with the births around its difference
"""

import logging
import secrets
import sys
import warnings
from pathlib import Path

import click

from memcalc.errors import InvalidWorkload
from tests import cases
from tests.comparison import Run, compare, run
from tests.streams_page import page, summary


@click.command()
@click.option("--random", "random_cases", default=100, help="Random cases to run after the pairwise cover.")
@click.option("--seed", type=int, help="Of the random cases; a fresh one by default.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the tables to this Markdown file.")
@click.option("--only", help='One case by its labels, such as "qwen2 lora ckpt": its difference in full.')
def main(random_cases: int, seed: int | None, out: Path | None, only: str | None) -> None:
    """Hold estimate's stream against trace's."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if only is not None:
        sys.exit(_one(only))
    state = Run(secrets.randbelow(10**6) if seed is None else seed)
    for _ in run(state, random_cases):
        _progress(state)
    click.echo("\n" + summary(state))
    if out is not None:
        out.parent.mkdir(exist_ok=True)
        out.write_text(page(state), encoding="utf-8")
    sys.exit(any(result.verdict == "differs" for result in state.results()))


def _one(text: str) -> bool:
    try:
        result = compare(cases.named(text))
    except (ValueError, InvalidWorkload) as error:
        raise click.BadParameter(str(error)) from None
    click.echo("\n".join(filter(None, (cases.name(result.case), result.verdict, result.why, result.context))))
    click.echo("\n".join(result.besides))
    return result.verdict == "differs"


def _progress(state: Run) -> None:
    """One line that overwrites itself on a terminal; nothing in a file."""
    if sys.stderr.isatty():
        differing = sum(result.verdict == "differs" for result in state.results())
        left = len(state.cover.missing) if state.cover else 0
        line = f"{len(state.covered)} of the cover ({left} pairs left), {len(state.drawn)} random, {differing} differ"
        click.echo(f"\r{line:<76}", nl=False, err=True)


if __name__ == "__main__":
    main()
