"""Every published measurement that estimate can express, against its prediction.

python -m tests.published --out reports/published.md            estimate's figures
python -m tests.published --trace --out reports/published.md    and trace's, which takes minutes
"""

import logging
import sys
import warnings
from pathlib import Path

import click

from tests.figures import predicted, rows
from tests.published_page import Predicted, page, summary


@click.command()
@click.option("--trace", "traced", is_flag=True, help="Also run the real step on meta; minutes.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the tables to this Markdown file.")
def main(*, traced: bool, out: Path | None) -> None:
    """Hold predictions against what others measured."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    found: list[Predicted] = []
    for row in rows():
        if sys.stderr.isatty():
            click.echo(f"\r{row.id:<76}", nl=False, err=True)
        found.append(Predicted(row, predicted(row), predicted(row, "trace") if traced else None))
    click.echo("\n" + summary(found))
    if out is not None:
        out.parent.mkdir(exist_ok=True)
        out.write_text(page(found, "--trace " if traced else ""), encoding="utf-8")
    sys.exit(any(figure.missed for each in found for figure in each.figures()))


if __name__ == "__main__":
    main()
