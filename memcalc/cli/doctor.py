"""`memcalc doctor`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

import memcalc
from memcalc.cli.documented import Documented

if TYPE_CHECKING:
    from memcalc.profiling.machine import Findings

EXAMPLES = ("memcalc doctor", "memcalc doctor --json")


@click.command(cls=Documented, examples=EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="print the findings as one JSON object")
@click.version_option(memcalc.__version__, prog_name="memcalc", message="%(prog)s %(version)s")
def doctor(as_json: bool) -> None:
    """Say what this machine can estimate, trace and measure, what not, and why."""
    from memcalc.profiling.machine import examine

    findings = examine(_trace_lacks)
    click.echo(json.dumps(findings.to_json()) if as_json else _page(findings), nl=as_json)


def _trace_lacks() -> str:
    from memcalc.tracing.private_api import missing

    return missing()


def _page(findings: Findings) -> str:
    lines = [f"memcalc {memcalc.__version__}", "", "Can be done here"]
    lines += [
        f"  {'no' if reason else 'yes':<5}{name}{f': {reason}' if reason else ''}"
        for name, reason in findings.obstacles.items()
    ]
    lines += ["", "Found"]
    for name, value in findings.facts.values.items():
        lines.append(f"  {name:<18}{_words(value) if value is not None else f'– ({findings.facts.unavailable[name]})'}")
    return "\n".join(lines) + "\n"


def _words(value: Any) -> str:
    from memcalc.units import gib

    if isinstance(value, list):
        return "; ".join(map(_words, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(part)}" for name, part in value.items()) or "none"
    return gib(value) if isinstance(value, int) and value > 2**20 else str(value)
