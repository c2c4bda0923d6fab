"""The command line, `memcalc COMMAND [OPTIONS]`.

A command is a file of this folder: the file's name is the command's, and it holds a click command of that
name, imported when it is called for. A folder listing is the list of commands.
"""

import codecs
import gc
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

import memcalc
from memcalc.errors import BadFile, MemcalcError, UnknownName

EXAMPLES = """\
  memcalc estimate --model 1.3b --method qlora --batch 8
  memcalc estimate --model llama-3.1-8b --rank 16 --seq-len 2048 --gpu rtx4090 --check
  memcalc estimate --model ./my-model --method full --checkpointing --json
  memcalc levers --model llama-3.1-8b --batch 8 --seq-len 2048
"""
_NO_COMMANDS = (
    "__init__",
    "completing",
    "documented",
    "fields",
    "listing",
    "options",
    "show",
    "suites",
)  # the other files of this folder
_LOOKALIKES = str.maketrans({"×": "x", "·": "|", "–": "-", "…": "...", "→": "->", **dict.fromkeys("█▉▊▋▌▍▎▏", "#")})


class Commands(click.Group):
    """The files of this folder as commands, each imported on its first use."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            remedy = "a command comes first, as in memcalc estimate --model 7b"
            raise UnknownName("option", error.option_name, ("--help", "--version"), remedy) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = (entry.name for entry in os.scandir(os.path.dirname(__file__)))
        return sorted(name[:-3] for name in names if name.endswith(".py") and name[:-3] not in _NO_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = cmd_name.replace("-", "_")
        if name not in self.list_commands(ctx):
            return None
        command: click.Command = getattr(import_module(f"memcalc.cli.{name}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise UnknownName("command", args[0], self.list_commands(ctx), "memcalc --help lists them")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            super().invoke(ctx)
            if sys.stdout is not None:  # as it is where the caller has closed it
                sys.stdout.flush()
        except OSError as error:
            if error.filename is not None:
                raise  # a file's, not the output's
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to say, not even at exit
            if isinstance(error, BrokenPipeError):  # the reader has left, as `head` does
                raise click.exceptions.Exit(141) from None  # 128 + SIGPIPE, as shells count it
            raise BadFile("standard output", f"cannot be written: {error.strerror}") from None

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        formatter.write(f"\nExamples:\n{EXAMPLES}")


@click.group(cls=Commands, invoke_without_command=True, subcommand_metavar="COMMAND [OPTIONS]", options_metavar="")
@click.version_option(memcalc.__version__, prog_name="memcalc", message="%(prog)s %(version)s")
@click.pass_context
def commands(ctx: click.Context) -> None:
    """How much GPU memory and how many trainable parameters a fine-tuning run needs, before it runs.

    `memcalc COMMAND --help` shows a command's options, with examples.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (sys.argv's where none is given); returns the exit code."""
    gc.set_threshold(50_000)  # importing makes objects that stay: the collector need not look at them again and again
    _survive_any_encoding()
    try:
        status = commands.main(arguments, prog_name="memcalc", standalone_mode=False)
    except MemcalcError as error:
        return _refuse(str(error), error.exit_code)
    except click.ClickException as error:
        return _refuse(error.format_message(), 2)
    except click.Abort:  # click's word for Ctrl-C
        return 130
    return status if isinstance(status, int) else 0


def _refuse(message: str, exit_code: int) -> int:
    line = " ".join(message.split())
    visible = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
    print(f"memcalc: error: {visible}", file=sys.stderr)  # noqa: T201 - the one place that prints errors
    return exit_code


def _survive_any_encoding() -> None:
    """A terminal or pipe that cannot show × or █ (code page 1252, Latin-1) shows x or #, and never a traceback."""

    def lookalike(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        text = error.object[error.start : error.end].translate(_LOOKALIKES)
        return text.encode("ascii", "backslashreplace").decode("ascii"), error.end

    codecs.register_error("memcalc.lookalike", lookalike)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="memcalc.lookalike")
