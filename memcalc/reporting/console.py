"""A footprint as people read it in a terminal, a pipe or a README: 80 columns, no frames, no colour needed."""

from collections.abc import Iterable, Iterator
from textwrap import wrap
from typing import TYPE_CHECKING

from rich.text import Text

from memcalc.units import gib

if TYPE_CHECKING:
    from memcalc.footprint import Footprint

_BAR = 28  # columns of the longest bar
_EIGHTHS = " ▏▎▍▌▋▊▉"
_NAMES = {"logits_loss": "logits / loss"}
_LEVELS = (  # what each level holds beyond the one before it
    ("live", "peak_live", "blocks alive at the peak"),
    ("allocated", "peak_allocated", "of remainders: torch's max_memory_allocated"),
    ("reserved", "peak_reserved", "kept for reuse: torch's max_memory_reserved"),
    ("device", "device_total", "of CUDA context: what nvidia-smi will show"),
)


def rendered(footprint: "Footprint", *, verdict: bool = False) -> Text:
    """All that a person wants to know of a footprint; `verdict` adds whether it fits on the workload's GPU."""
    blocks = [heading(footprint), _categories(footprint), _levels(footprint), _phases(footprint), _facts(footprint)]
    if footprint.largest:
        blocks.append(_largest(footprint))
    if verdict:
        blocks.append(_verdict(footprint))
    if footprint.warnings:
        blocks.append(Text(f"warning: {printable(warning)}", style="bold") for warning in footprint.warnings)
    paragraphs = (Text("\n").join(line for line in block if line) for block in blocks)
    return Text("\n\n").join(paragraph for paragraph in paragraphs if paragraph)


def printable(text: object) -> str:
    """Text that came from outside (a path, a config), safe for a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(text))


def heading(footprint: "Footprint") -> Iterator[Text]:
    """Three lines: what is trained, how, and whose loop runs it. Says what the workload says, and no more."""
    w = footprint.workload
    training = w.get("mode") != "inference"
    method = [w.get("method"), f"rank {w['rank']}" if "rank" in w else None]
    size = f"{w['batch']} × {w['seq_len']} tokens" if {"batch", "seq_len"} <= w.keys() else None
    accumulated = f"{w['grad_accum']} micro-batches a step" if w.get("grad_accum", 1) != 1 else None
    yield _line([w.get("model"), _words(method), size, accumulated], style="bold")
    kernel = w.get("attention_kernel") or w.get("attention")
    yield _line(
        [
            _words([f"{w['quant']} base in" if w.get("quant", "none") != "none" else None, w.get("dtype")]),
            f"{w['amp']} autocast" if w.get("amp", "none") != "none" else None,
            w.get("optimizer") if training else "inference",
            f"{kernel} attention" if kernel else None,
            "checkpointing" if w.get("checkpointing") else None,
        ]
    )
    yield _line(
        [
            footprint.producer,
            f"{w['loop']} loop" if training and "loop" in w else None,
            f"history {w['history'] or 'none'}" if "history" in w else None,
            f"{w['loss']} loss" if training and "loss" in w else None,
        ]
    )


def _line(parts: Iterable[object], style: str = "") -> Text:
    return Text(printable(" · ".join(str(part) for part in parts if part)), style=style)


def _words(parts: Iterable[object]) -> str:
    return " ".join(str(part) for part in parts if part)


def _categories(footprint: "Footprint") -> Iterator[Text]:
    total = footprint.peak_allocated
    if footprint.at_peak is None or not total:
        yield Text(f"What is allocated at the peak is not known: {_reason(footprint, 'at_peak')}")
        return
    title = f"At the peak, in {footprint.peak_phase}" if footprint.peak_phase else "At the peak"
    yield Text(f"{title:<24}{'memory':>12}{'share':>9}", style="bold")
    longest = max(footprint.at_peak.values())
    for category, nbytes in footprint.at_peak.items():
        if nbytes:
            row = Text(f"  {category_name(category):<22}{gib(nbytes):>12}{_percent(nbytes, total):>9}  ")
            yield row.append(_bar(nbytes, longest), style="cyan")
    yield Text(f"  {'total':<22}{gib(total):>12}{_percent(total, total):>9}", style="bold")


def category_name(category: str) -> str:
    """A category as people read it."""
    return _NAMES.get(category, category.replace("_", " "))


def _bar(part: int, whole: int) -> str:
    """A bar in eighths of a column; what is there at all shows as a sliver."""
    eighths = max(1, round(part / whole * _BAR * 8))
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def _percent(part: int, whole: int) -> str:
    share = 100 * part / whole
    return f"{share:.1f} %" if share >= 0.1 else "< 0.1 %"


def _levels(footprint: "Footprint") -> Iterator[Text]:
    yield Text("Levels", style="bold")
    rounded = ", each rounded up to 512 bytes" if footprint.workload.get("device") != "cpu" else ""
    below: int | None = None
    for name, field, beyond in _LEVELS:
        level: int | None = getattr(footprint, field)
        if level is None:
            first, *more = wrap(_reason(footprint, field), 80 - 26) or [""]
            yield Text(f"  {name:<11}{'–':>11}  {first}")
            yield from (Text(f"{'':<26}{line}") for line in more)
            continue
        why = beyond + rounded if below is None else f"+ {gib(level - below)} {beyond}"
        yield Text(f"  {name:<11}").append(f"{gib(level):>11}", style="bold").append(f"  {why}")
        below = level


def _phases(footprint: "Footprint") -> Iterator[Text]:
    if footprint.phases:
        yield Text(f"{'Phases':<13}{'allocated':>11}{'after it':>13}{'reserved':>13}", style="bold")
    for phase in footprint.phases:
        levels = (phase.allocated_peak, phase.allocated_end, phase.reserved_peak)
        peak, end, reserved = ("–" if level is None else gib(level) for level in levels)
        yield Text(f"  {phase.name:<11}{peak:>11}{end:>13}{reserved:>13}")


def _facts(footprint: "Footprint") -> Iterator[Text]:
    total, trainable = footprint.total_params, footprint.trainable_params
    if total is not None and trainable is not None:
        share = f" ({100 * trainable / total:.2g} %)" if 0 < trainable < total else ""
        yield Text(f"trainable parameters: {trainable:,} of {total:,}{share}")
    if footprint.checkpoint_bytes is not None:
        yield Text(f"checkpoint on disk: {gib(footprint.checkpoint_bytes)}")
    if footprint.outcome not in (None, "ok"):
        yield Text(f"outcome: {printable(footprint.outcome).replace('_', ' ')}", style="bold red")


def _largest(footprint: "Footprint") -> Iterator[Text]:
    yield Text(f"{'Largest blocks':<24}{'memory':>12}  module: op", style="bold")
    for block in footprint.largest:
        yield Text(f"  {category_name(block.category):<22}{gib(block.nbytes):>12}  {printable(block.label)}")


def _verdict(footprint: "Footprint") -> Iterator[Text]:
    from memcalc.catalog.find import find_gpu

    gpu = str(footprint.workload["gpu"])
    if footprint.peak_reserved is None:
        card = find_gpu(gpu)
        place = gib(card.memory_bytes) if card.memory_source == "given" else f"{card.name} ({gib(card.memory_bytes)})"
        yield Text(f"whether it fits on {place} is not known: {_reason(footprint, 'peak_reserved')}")
        return
    verdict = footprint.fits(gpu)
    yield Text(str(verdict), style="bold green" if verdict else "bold red")
    if verdict.context_known:
        yield Text(f"  reserved memory and a CUDA context of {gib(verdict.needed - footprint.peak_reserved)}")
    else:
        yield Text("  reserved memory alone: no CUDA context was measured for this card")


def _reason(footprint: "Footprint", field: str) -> str:
    return printable(footprint.unavailable.get(field, "no reason was recorded"))
