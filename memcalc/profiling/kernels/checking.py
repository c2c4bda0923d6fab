"""The kernel table held against what a card did: each entry confirmed, wrong by so much, or unmeasured."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from memcalc import kernels
from memcalc.kernels import Scratch
from memcalc.profiling.kernels.probe import rounded
from memcalc.profiling.kernels.suite import FILES, LEFT_OUT, gpu_of

_NO_ENTRIES = {"Gpu", "Scratch", "check_dtypes", "INT8_THRESHOLD", "NO_OUTLIERS", "CUDNN_SPACES_LEFT_OUT"}
ENTRIES = tuple(name for name in kernels.__all__ if name not in _NO_ENTRIES)
FACTS = {  # of the process and of libraries, as the tracer and the replay take them
    "cublas_workspace_after_output": lambda _: True,
    "cublas_workspace_of_autograd": kernels.cublas_workspace,
    "cublaslt_workspace_of_its_own": lambda _: 0,
    "segments_descend": lambda _: True,
    "singular_vectors_lie_by_rows": lambda _: True,
    "cuda_context": lambda gpu: gpu.context_bytes,
    "cuda_context_when_empty": lambda _: None,
    **{f"cuda_context_with_{loaded}": lambda _: None for loaded in FILES},
}


@dataclass
class Verdict:
    """What all records say of one entry."""

    entry: str
    confirmed: int = 0
    wrong: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    unpredicted: list[int] = field(default_factory=list)  # figures to learn from

    @property
    def word(self) -> str:
        if self.wrong:
            return "wrong"
        return "confirmed" if self.confirmed else "unmeasured"

    def lines(self) -> Iterator[str]:
        """The entry in one line, and a line for each case where it is wrong."""
        count = self.confirmed + len(self.wrong)
        detail = f"{self.confirmed} of {count} cases" if count else self._why_unmeasured()
        yield f"{self.word:<11}{self.entry:<36}{detail}"
        yield from (f"           {line}" for line in self.wrong)

    def _why_unmeasured(self) -> str:
        if not self.unpredicted:
            return (self.refused or ["no record"])[0]
        ends = dict.fromkeys((min(self.unpredicted), max(self.unpredicted)))
        return f"nothing to compare with, measured {' to '.join(f'{end:,}' for end in ends)}"


def verdicts(records: Iterable[dict[str, Any]]) -> list[Verdict]:
    """One for each entry of the table and each fact of the process, then those that the table does not speak of."""
    found = {entry: Verdict(entry) for entry in (*ENTRIES, *FACTS)}
    for record in records:
        verdict = found.setdefault(record["entry"], Verdict(record["entry"]))
        if "refused" in record:
            verdict.refused.append(record["refused"])
            continue
        if predict(record) is None:
            verdict.unpredicted.append(record["measured"]["value"])
            continue
        difference = compare(record)
        if difference is None:
            verdict.confirmed += 1
        else:
            verdict.wrong.append(f"{difference}  at {json.dumps(record['arguments'])}")
    return list(found.values())


def compare(record: dict[str, Any]) -> str | None:
    """How the table is off where a record was measured; None where it is right."""
    predicted, measured = predict(record), record["measured"]
    if isinstance(predicted, Scratch):
        return _blocks(predicted, measured)
    value = measured["value"]
    expected = list(predicted) if isinstance(predicted, tuple) else predicted
    if value == expected:
        return None
    if type(value) is int and type(expected) is int:
        return f"{value - expected:+,}: {value:,}, not {expected:,}"
    return f"{value!r}, not {expected!r}"


def predict(record: dict[str, Any]) -> Any:
    """The table's word; where it has none, no blocks are expected inside an operator, but for what is left out."""
    entry, gpu = record["entry"], gpu_of(record)
    if entry in LEFT_OUT:
        return None
    if entry in FACTS:
        return FACTS[entry](gpu)
    if entry not in ENTRIES:
        return Scratch()
    function = getattr(kernels, entry)
    given = {"gpu": gpu} if _asks_for_gpu(function) else {}
    return function(**given, **record["arguments"])


def _asks_for_gpu(function: Any) -> bool:
    code = function.__code__
    return "gpu" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _blocks(predicted: Scratch, measured: dict[str, Any]) -> str | None:
    """The fullest moment decides: all outputs and all of the operator's own blocks, each rounded."""
    expected = sum(map(rounded, (*measured["outputs"], *predicted.before, *predicted.after)))
    if measured["peak"] == expected:
        return None
    own = [*measured["before"], *measured["after"]]
    return f"{measured['peak'] - expected:+,} bytes: {own}, not {[*predicted.before, *predicted.after]}"
