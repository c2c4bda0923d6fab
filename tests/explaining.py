"""Why a prediction is off a published figure: what the measured run did that today's versions do not."""

from dataclasses import dataclass

from memcalc import families
from memcalc.families.config import Config
from tests.figures import Figure, Row

EXPLAINED_ABOVE = 0.003  # a figure that is further off has to be explained


@dataclass(frozen=True)
class Reason:
    """What is known; `nbytes` is what it makes in the prediction less the measurement, where it can be counted."""

    text: str
    nbytes: int | None = None


def reason(row: Row, figure: Figure) -> Reason | None:
    """Why this figure of this row is off, as far as anybody knows."""
    match row.source, figure.name:
        case "vramcalc", "peak allocated" if row.workload.training and not row.workload.checkpointing:
            return Reason(
                "transformers 4.57 without a KV cache builds a block mask, so attention runs the efficient kernel and "
                "each layer keeps K and V repeated to all heads and an additive mask; today flash runs, with neither",
                -_efficient_instead_of_flash(row),
            )
        case "fms", "peak allocated":
            return Reason(
                f"the loss of transformers {row.versions['transformers']} shifts the logits: its forward holds them in "
                "fp32, shifted in fp32 and as log-softmax, as many as today's backward, while the last hidden state is "
                "alive beside them, and from 4.48 on the logits in half precision too",
                -_beside_the_logits(row),
            )
        case "peft", "peak reserved" if row.workload.method_name == "p_tuning_v2":
            return Reason(
                "open: the run's average and 99th percentile are 0.3 GB above too, and what is allocated after a step "
                "is as predicted; no tensor of peft's or transformers' code accounts for it"
            )
        case "peft", "peak reserved":
            return Reason(
                "the longest batch's length is not published: 684 tokens were inferred, 683 to 688 fit (see the range)"
            )
        case "peft", "saved file" if row.workload.method_name == "adalora":
            return Reason("when the run ends ranks have been allotted, and of those at first a share is saved")
        case "peft", "saved file":
            return Reason("the file begins with a header: each tensor's name, shape and place, tens of bytes a tensor")
        case "fitcheck", "after loading" | "peak reserved" if row.workload.quant != "none":
            return Reason(
                "slack of the loading history: two processes that loaded the same weights differ by 2 MiB themselves, "
                "and by what their segments were cut into (see the range)"
            )
        case "fitcheck", "peak reserved":
            return Reason(
                "which of two free blocks of one size is taken depends on the addresses of their segments: the other "
                "order gives another figure (see the range)"
            )
    return None


def _efficient_instead_of_flash(row: Row) -> int:
    """K and V repeated to all heads, less those that are not, and an additive mask, all in bf16, per layer."""
    w, c = row.workload, _config(row)
    repeated = 2 * w.batch * (c.heads - c.kv_heads) * w.seq_len * c.head_dim * 2
    mask = w.batch * w.seq_len * w.seq_len * 2
    return c.layers * (repeated + mask)


def _beside_the_logits(row: Row) -> int:
    """The last hidden state; from transformers 4.48 on the logits before they are raised to fp32; all in bf16."""
    w, c = row.workload, _config(row)
    major, minor = (int(part) for part in row.versions["transformers"].split(".")[:2])
    return w.batch * w.seq_len * (c.hidden + (c.vocab if (major, minor) >= (4, 48) else 0)) * 2


def _config(row: Row) -> Config:
    model = row.workload.model
    return families.find(model.config["model_type"]).read(model)
