"""Options of the command line made from dataclass fields: Workload's, and the chosen method's."""

import dataclasses
from collections.abc import Callable, Container, Iterable, Mapping
from types import NoneType
from typing import Any, get_args

import click

from memcalc.cli.completing import completer
from memcalc.options import Option, options_of


class FieldOption(click.Option):
    """One field as an option. Help shows its own flag; the other names for it are accepted, not shown."""

    def __init__(
        self, field: "dataclasses.Field[Any]", described: Option, section: str, default: str, name: str = ""
    ) -> None:
        self.section = section
        self.shown_flag = f"--[no-]{described.flag.split('/')[0][2:]}" if "/" in described.flag else described.flag
        self.shown_default = default
        flags = [described.flag, *described.aliases]
        settings: dict[str, Any] = {"help": described.help, "default": None}
        if "/" in described.flag:
            flags = [flag if "/" in flag else f"{flag}/--no-{flag.removeprefix('--')}" for flag in flags]
        else:
            kinds = _kinds(field.type)
            settings |= {"type": reader(kinds), "metavar": _metavar(described, kinds), "multiple": tuple in kinds}
            settings["shell_complete"] = completer(described.flag, described.choices)
        super().__init__([*flags, name or field.name], **settings)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        metavar = f" {self.metavar}" if self.metavar else ""
        default = f"  [default: {self.shown_default}]" if self.shown_default else ""
        return f"{self.shown_flag}{metavar}", f"{self.help}{default}"

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """A list's items may stand apart by commas, or each behind its own flag."""
        cast = super().type_cast_value(ctx, value)
        if not self.multiple or not cast:
            return cast
        return tuple(item.strip() for text in cast for item in str(text).split(","))


def reader(kinds: frozenset[type]) -> Callable[[str], Any]:
    """Reads text as the number that it is, where the field takes one. Anything else goes on as text: what a
    field may hold is checked in one place, where the workload is made.
    """

    def read(text: str) -> Any:
        if NoneType in kinds and text.lower() == "none":
            return None
        for kind in (int, float):
            if kind in kinds:
                try:
                    return kind(text)
                except ValueError:
                    pass
        return text

    return read


def fields_of(
    cls: type, section: str, sections: Mapping[str, str] | None = None, defaults: Mapping[str, str] | None = None
) -> list[FieldOption]:
    """The options that a dataclass declares, in order.

    `sections` names the fields with which another section of the help begins; `defaults` says in words what
    holds where a field is not given and its own default is not the whole truth.
    """
    declared = options_of(cls)
    options = []
    for field in dataclasses.fields(cls):
        if field.name in declared:
            section = (sections or {}).get(field.name, section)
            default = (defaults or {}).get(field.name) or _default(field.default)
            options.append(FieldOption(field, declared[field.name], section, default))
    return options


def by_any_flag(classes: Iterable[type], taken: Container[str]) -> list[FieldOption]:
    """A hidden option for each flag that any of the classes has and that is not taken yet, by the name of the flag."""
    found: dict[str, FieldOption] = {}
    for cls in classes:
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for field, described in options_of(cls).items():
            for flag in (described.flag, *described.aliases):
                plain = flag.split("/")[0]
                if plain in found or plain in taken:
                    continue
                name = field if flag == described.flag else plain.lstrip("-").replace("-", "_")
                switch = "/" in described.flag and "/" not in flag
                alone = described._replace(flag=f"{flag}/--no-{flag[2:]}" if switch else flag, aliases=())
                found[plain] = FieldOption(fields[field], alone, "", "", name)
                found[plain].hidden = True
    return list(found.values())


def _kinds(annotation: Any) -> frozenset[type]:
    """The plain types in an annotation: float | None → {float, NoneType}, tuple[str, ...] → {tuple}."""
    origin = getattr(annotation, "__origin__", None)
    if isinstance(origin, type):
        return frozenset((origin,))
    parts = get_args(annotation)
    return frozenset().union(*map(_kinds, parts)) if parts else frozenset((annotation,))


def _metavar(described: Option, kinds: frozenset[type]) -> str:
    if described.choices:
        return "|".join(described.choices)
    return next((word for kind, word in ((tuple, "LIST"), (int, "N"), (float, "X")) if kind in kinds), "TEXT")


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value) if isinstance(value, int | float | str) else ""
