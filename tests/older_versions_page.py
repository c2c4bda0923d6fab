"""The report on trace under older libraries: every figure with its bar, and what the misses of a source come to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.figures import Row

_HEAD: Final = "| row | figure | measured | trace | | error | bar | within |\n|---|---|---:|---:|---:|---:|---:|---|"
_MEAN_OF_RESERVED: Final = 0.01  # of PEFT's rows, whatever the length that was not published
_RESERVED: Final = 0.03
_RESERVED_OF_PREFIXES: Final = 0.055


@dataclass(frozen=True)
class Held:
    """A measured figure, what trace says, and the largest error allowed; None: none was set."""

    name: str
    measured: int
    traced: int
    bar: float | None

    @property
    def error(self) -> float:
        return (self.traced - self.measured) / self.measured

    @property
    def missed(self) -> bool:
        return self.bar is not None and abs(self.error) > self.bar


def bar(row: Row, figure: str) -> float | None:
    """The largest relative error of a figure that this project allows trace in the row's own libraries."""
    kind = figure.partition(": ")[0]
    allocated = kind in {"peak allocated", "phase", "after training"}
    if kind == "trainable parameters":
        return 0.0
    if row.source == "peft":
        return _RESERVED_OF_PREFIXES if row.id.startswith("prefix") else _RESERVED
    if kind == "peak reserved":  # over a packed base it carries how the weights were loaded
        return 0.005 if row.options.get("method") == "lora" else None
    return {"vramcalc": 0.0005, "fitcheck": 0.003, "fms": 0.001}[row.source] if allocated else None


def held(row: Row, result: Mapping[str, Any]) -> list[Held]:
    """A row's figures beside their bars."""
    return [Held(name, measured, traced, bar(row, name)) for name, measured, traced in result.get("figures", ())]


def missed(found: Mapping[str, list[dict[str, Any]]], rows: Mapping[str, Row]) -> bool:
    """Whether anything is outside of its bar."""
    results = [result for each in found.values() for result in each]
    figures = [figure for result in results for figure in held(rows[result["row"]], result)]
    means = [mean for _, mean, _ in _by_length(results)]
    return any(figure.missed for figure in figures) or any(mean > _MEAN_OF_RESERVED for mean in means)


def page(found: Mapping[str, list[dict[str, Any]]], rows: Mapping[str, Row]) -> str:
    """All environments as Markdown."""
    return "\n".join(_sections(found, rows)) + "\n"


def _sections(found: Mapping[str, list[dict[str, Any]]], rows: Mapping[str, Row]) -> Iterator[str]:
    yield "# trace under older libraries"
    yield ""
    yield "Made by `python -m tests.older_versions --out reports/older_versions.md`. Bytes, or parameters. Each row"
    yield "runs under the transformers and peft of its measurement, or the nearest release, on the torch named below."
    yield "A bar is the largest error that this project allows itself there."
    yield ""
    yield "The scripts of vramcalc and fitcheck pass their input ids as labels too; trace hands over two tensors, so"
    yield "its allocated figures are 8 bytes a token above theirs: 16,384 or 32,768 B, all of the error in most rows."
    for version, results in found.items():
        used: dict[str, str] = next((result["versions"] for result in results if "versions" in result), {})
        named = ", ".join(
            f"{package} {used[package]}" for package in ("torch", "peft", "accelerate") if package in used
        )
        yield from ("", f"## transformers {version}", "", named, "", _HEAD)
        for result in results:
            yield from _rows(rows[result["row"]], result)
        yield from _lengths(results)


def _rows(row: Row, result: Mapping[str, Any]) -> Iterator[str]:
    if "refused" in result:
        yield f"| {row.id} | not run: {result['refused']} | | | | | | |"
    for figure in held(row, result):
        allowed = "" if figure.bar is None else f"{figure.bar:.2%}" if figure.bar else "exact"
        within = "" if figure.bar is None else "**no**" if figure.missed else "yes"
        off = figure.traced - figure.measured
        yield (
            f"| {row.id} | {figure.name} | {figure.measured:,} | {figure.traced:,} | {off:+,} | {figure.error:+.4%} "
            f"| {allowed} | {within} |"
        )


def _lengths(results: list[dict[str, Any]]) -> Iterator[str]:
    """The longest batch of PEFT's rows was not published: what the candidates give."""
    found = list(_by_length(results))
    if found:
        yield from ("", "Reserved by the length of the longest batch, which was not published:", "")
        yield "| tokens | mean error | largest but prefix tuning's | bar of the mean |\n|---:|---:|---:|---:|"
        for length, mean, worst in found:
            yield f"| {length} | {mean:.2%} | {worst:.2%} | {_MEAN_OF_RESERVED:.0%} |"


def _by_length(results: list[dict[str, Any]]) -> Iterator[tuple[str, float, float]]:
    """(length, mean, largest) of the absolute errors of reserved, where rows were run at several lengths."""
    several = [result for result in results if "reserved_by_length" in result]
    for length in several[0]["reserved_by_length"] if several else ():
        errors = {}
        for result in several:
            measured = next(real for name, real, _ in result["figures"] if name == "peak reserved")
            errors[result["row"]] = abs(result["reserved_by_length"][length] / measured - 1)
        others = [error for row, error in errors.items() if not row.startswith("prefix")]
        yield length, sum(errors.values()) / len(errors), max(others)
