"""Parameter counts of estimate against transformers and peft on the meta device, over the catalog.

python -m tests.counts --out reports/counts.md      every model with every method; minutes
"""

import logging
import sys
import warnings
from pathlib import Path

import click

from tests.counting import Count, catalog, counts
from tests.counts_page import page, summary


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Write the table to this Markdown file.")
@click.option("--model", "wanted", help="One model only.")
def main(out: Path | None, wanted: str | None) -> None:
    """Count every model of the catalog with every method, both ways."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    found: list[Count] = []
    for model in catalog():
        if wanted in {None, model.name}:
            if sys.stderr.isatty():
                click.echo(f"\r{model.name:<60}", nl=False, err=True)
            found += counts(model)
    click.echo("\n" + summary(found))
    if out is not None:
        out.parent.mkdir(exist_ok=True)
        out.write_text(page(found), encoding="utf-8")
    sys.exit(any(not each.exact for each in found))


if __name__ == "__main__":
    main()
