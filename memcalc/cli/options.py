"""The options of every command that takes a workload: Workload's fields, and the chosen method's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from memcalc import methods
from memcalc.cli.completing import completer
from memcalc.cli.fields import by_any_flag, fields_of
from memcalc.errors import InvalidWorkload, UnknownName, shown

if TYPE_CHECKING:
    from memcalc.workload import Workload

_SECTIONS = {  # the field of Workload with which a section of the help begins
    "batch": "Batch and precision",
    "quant": "Quantization",
    "optimizer": "Memory levers",
    "mode": "Loop",
    "device": "GPU and allocator",
}
_NOTES = """
Names known from elsewhere are accepted too (--batch-size, --max-length,
--lora-r, --grad-ckpt, …), and _ for -. --method NAME --help shows the options
of that method.

Exit codes: 0, 1 --check and it does not fit, 2 bad input, 3 not modelled,
4 the run failed.
"""
_OF_METHODS = """
Options of methods (--rank, --target, --virtual-tokens, …) are taken too: each
goes to the methods that have it, as it would behind --method NAME.
"""
_DEFAULTS = {  # fields whose default depends on others
    "kbit_prepare": "peft in training with --quant nf4, fp4 or int8, else none",
    "checkpointing": "off; on with --kbit-prepare",
    "use_cache": "off in the trainer loop and with checkpointing, else the model's own",
    "keep_logits": "by --loop: none in trainer, next in plain",
    "zero_grad": "by --loop: none in both",
    "clip": "by --loop: 1.0 in trainer, none in plain",
    "history": "same in training, none in inference",
    "load": "to; device-map with --quant",
}


class WorkloadCommand(click.Command):
    """A command about one workload. Its options are Workload's fields and those of the method that `--method`
    names, and its callback takes `workload`, made from the options that were given and no others.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **settings: Any) -> None:
        settings["context_settings"] = {"token_normalize_func": _dashed, "allow_extra_args": True}
        super().__init__(*args, **settings)
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["memcalc.method"] = methods.canonical_name(_last_given("--method", args) or "lora")
        try:
            extra = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise self._refused(ctx, error.option_name) from None
        if extra:
            raise InvalidWorkload(
                f"unexpected argument {shown(extra[0])}: a value follows its option; a switch takes none"
            )
        return extra

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*self._workload_params(ctx), *super().get_params(ctx)]

    def _workload_params(self, ctx: click.Context) -> list[click.Parameter]:
        if "memcalc.params" not in ctx.meta:
            from memcalc.workload import Workload

            method = ctx.meta.setdefault("memcalc.method", "lora")
            chosen = fields_of(methods.load(method).METHOD, "Method")
            ctx.meta["memcalc.params"] = [*_names(), *chosen, *fields_of(Workload, "", _SECTIONS, _DEFAULTS)]
        params: list[click.Parameter] = ctx.meta["memcalc.params"]
        return params

    def invoke(self, ctx: click.Context) -> Any:
        names = [param.name for param in self._workload_params(ctx) if param.name]
        values = {name: ctx.params.pop(name) for name in names}
        source = ctx.get_parameter_source
        given = {name: value for name, value in values.items() if source(name) is ParameterSource.COMMANDLINE}
        if "model" not in given:
            raise InvalidWorkload("--model is missing: give a name (--model llama-3.1-8b), a size (7b) or a path")
        ctx.params["workload"] = _workload(given)
        return super().invoke(ctx)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        if self.examples:
            formatter.write("\nExamples:\n" + "".join(f"  {example}\n" for example in self.examples))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and not getattr(param, "hidden", False):
                sections.setdefault(getattr(param, "section", "Output"), []).append(record)
        for title in ("Model", "Method", *_SECTIONS.values(), "Output"):
            if title in sections:
                with formatter.section(self.heading(ctx, title)):
                    formatter.write_dl(sections[title], col_max=26)

    def heading(self, ctx: click.Context, title: str) -> str:
        """A section's title; the method's says whose options they are."""
        return f"{title} ({ctx.meta['memcalc.method']})" if title == "Method" else title

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(_NOTES)

    def _refused(self, ctx: click.Context, flag: str) -> InvalidWorkload | UnknownName:
        """One line for an option that is not here: whose it is, or which ones are nearest."""
        owners = [name for name in methods.names() if flag in _flags(methods.load(name).METHOD)]
        if owners:
            method = ctx.meta["memcalc.method"]
            return InvalidWorkload(f"--method {method} has no {shown(flag)}: it belongs to {', '.join(owners)}")
        known = [param.opts[0] for param in self.get_params(ctx)]
        return UnknownName("option", flag, known, f"{ctx.command_path} --help lists them")


class MethodsCommand(WorkloadCommand):
    """A command about many methods on one model. Options of methods are taken too, each for the methods that have it.

    Its callback takes `model` (None where it is not given), `only`, the methods' names, and `options`, all others that
    were given.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return click.Command.parse_args(self, ctx, args)
        except click.NoSuchOption as error:
            known = [flag for param in self.get_params(ctx) for flag in param.opts]
            raise UnknownName("option", error.option_name, known, f"{ctx.command_path} --help lists them") from None

    def _workload_params(self, ctx: click.Context) -> list[click.Parameter]:
        if "memcalc.params" not in ctx.meta:
            from memcalc.workload import Workload

            own = fields_of(Workload, "", _SECTIONS, _DEFAULTS)
            taken = {flag for option in own for flag in option.opts}
            foreign = by_any_flag((methods.load(name).METHOD for name in methods.names()), taken)
            ctx.meta["memcalc.params"] = [_MODEL, _ONLY, _GPU, *foreign, *own]
        params: list[click.Parameter] = ctx.meta["memcalc.params"]
        return params

    def invoke(self, ctx: click.Context) -> Any:
        names = [param.name for param in self._workload_params(ctx) if param.name]
        values = {name: ctx.params.pop(name) for name in names}
        source = ctx.get_parameter_source
        given = {name: value for name, value in values.items() if source(name) is ParameterSource.COMMANDLINE}
        only = [methods.canonical_name(name) for name in str(given.pop("only", "")).split(",") if name]
        ctx.params |= {"model": given.pop("model", None), "only": only, "options": given}
        return click.Command.invoke(self, ctx)

    def heading(self, ctx: click.Context, title: str) -> str:
        return title

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(_OF_METHODS)


def _workload(given: dict[str, Any]) -> "Workload":
    """What was given, as a workload: the method by its options, or by peft's own config."""
    config = given.pop("peft_config", None)
    if config is None:
        from memcalc.workload import Workload

        return Workload.of(**given)
    from memcalc.importers import peft

    return peft.workload(given.pop("model"), config, given.pop("method", None), **given)


def _names() -> list[click.Parameter]:
    """What a workload names: its model, its method, its GPU."""
    listed = ", ".join(methods.names())
    return [
        _MODEL,
        Named("--method", "Method", "NAME", f"{listed}  [default: lora]"),
        Named("--peft-config", "Method", "PATH", "peft's adapter_config.json, or its folder, in place of --method"),
        _GPU,
    ]


class Named(click.Option):
    """An option of the workload that is looked up by name, not a field."""

    def __init__(self, flag: str, section: str, metavar: str, help: str, aliases: Sequence[str] = ()) -> None:
        self.section = section
        super().__init__(
            [flag, *aliases, flag[2:].replace("-", "_")], metavar=metavar, help=help, shell_complete=completer(flag)
        )


_MODEL = Named("--model", "Model", "NAME|PATH", "a name, a size (7b), a hub id, a folder with config.json, or the file")
_GPU = Named("--gpu", "GPU and allocator", "NAME|SIZE", "rtx4090, a100-80gb, 24GiB, …  [default: a100-80gb]")
_ONLY = Named("--only", "Method", "NAME,…", "these methods, in this order; default: all", aliases=("--method",))


def _flags(method: type) -> list[str]:
    return [flag for option in fields_of(method, "") for flag in (*option.opts, *option.secondary_opts)]


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _last_given(flag: str, args: Sequence[str]) -> str | None:
    """The value of an option before the arguments are parsed: it decides which options there are."""
    value = None
    for at, arg in enumerate(args):
        if arg == "--":
            break
        name, equals, text = arg.partition("=")
        if name == flag:
            value = text if equals else (args[at + 1] if at + 1 < len(args) else None)
    return value
