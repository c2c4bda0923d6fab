"""Every figure of a report as CSV, in bytes: for spreadsheets and for programs."""

import csv
import io
from collections.abc import Iterable

from memcalc.reporting.cases import Case
from memcalc.reporting.summary import error

HEADS = (
    "case", "source", "producer", "model", "family", "method", "precision", "batch", "seq_len", "figure", "measured",
    "estimate", "estimate_error", "trace", "trace_error", "not_compared",
)  # fmt: skip


def csv_text(cases: Iterable[Case]) -> str:
    """A line for each figure; a line with a reason for each row that is compared with nothing."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADS)
    for case in cases:
        w = case.workload
        who = (
            case.row.name, case.row.source, case.row.footprint.producer, case.model, case.family, case.method,
            case.precision, w.get("batch", ""), w.get("seq_len", ""),
        )  # fmt: skip
        row = [_plain(value) for value in who]
        if case.missing:
            writer.writerow([*row, "", "", "", "", "", "", _plain(case.missing)])
            continue
        for each in case.figures:
            said = (each.estimate, error(each.measured, each.estimate), each.trace, error(each.measured, each.trace))
            cells = ["" if value is None else f"{value:.6f}" if isinstance(value, float) else value for value in said]
            writer.writerow([*row, each.name, each.measured, *cells, ""])
    return out.getvalue()


def _plain(value: object) -> object:
    """Text that no spreadsheet takes for a formula."""
    if isinstance(value, int | float):
        return value
    text = " ".join(str(value).split())
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
