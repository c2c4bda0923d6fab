"""A command whose help shows examples behind what it does."""

from collections.abc import Sequence
from typing import Any

import click


class Documented(click.Command):
    """Takes `examples`, whole command lines."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.examples = examples

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        if self.examples:
            formatter.write("\nExamples:\n" + "".join(f"  {example}\n" for example in self.examples))
