"""Every model of the catalog built by transformers on meta at its full depth, against the count from its config.

`python -m tests.catalog.at_full_depth` takes about a minute; the tests build the first two layers of each.
"""

import logging
import sys
import warnings

import click

from memcalc.catalog.find import models
from tests.catalog.building import built, counted


def main() -> int:
    """The number of models whose counts differ."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    counts = {model.name: (built(model.config), counted(model)) for model in models()}
    wrong = {name: both for name, both in counts.items() if both[0] != both[1]}
    for name, (real, mine) in wrong.items():
        click.echo(f"{name}: {real:,} built, {mine or 0:,} counted")
    click.echo(f"{len(counts) - len(wrong)} of {len(counts)} counts exact")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main() > 0)
