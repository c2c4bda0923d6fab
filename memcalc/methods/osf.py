"""OSF: the small singular values of a weight train, its large ones are kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.anatomy import ALL_LINEAR, Anatomy, match_targets
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.formats import HALF
from memcalc.methods.linears import OnLinears, target_option
from memcalc.options import option
from memcalc.tape.ops.elementwise import add, cast, mul, neg
from memcalc.tape.ops.linear import linear
from memcalc.tape.ops.views import cat, view
from memcalc.tape.tape import Array, Tensor, new, on_cuda

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight

# peft 0.21.2, utils/constants.py, TRANSFORMERS_MODELS_TO_OSF_TARGET_MODULES_MAPPING; elsewhere peft takes all-linear
_LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "up_proj")
_FUSED = ("query_key_value", "dense_4h_to_h")
_TARGETS = {
    "bloom": _FUSED,
    "falcon": _FUSED,
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
    "gemma3_text": _LLAMA,
    "gpt2": ("c_attn", "c_proj"),
    "gpt_bigcode": ("c_attn", "c_proj"),
    "gpt_neox": _FUSED,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
}


@final
@dataclass(frozen=True, slots=True)
class Osf(OnLinears):
    """OSF: y = W x + (U S V - U0 S0 V0) x, of the weight's singular vectors those beyond the first
    `effective_rank` (Nayak et al. 2025, arXiv:2504.07097).

    Trainable parameters: low * (d_in + d_out + 1) per target, low = min(d_in, d_out) - effective_rank; the first ones
    and the longer of the kept vectors are buffers. Keeps for backward: as LoRA of rank 2 low, whose matrices are put
    together anew in every forward.
    """

    effective_rank: float | None = option(
        None,
        "--effective-rank",
        "singular values kept, or up to 1 their share; default: half",
        aliases=("--rank", "--r"),
        size=True,
    )
    target: tuple[str, ...] = target_option()

    def default_targets(self, model_type: str) -> tuple[str, ...]:
        return _TARGETS.get(model_type, ())

    def targets(self, model: Anatomy) -> frozenset[str]:
        return match_targets(self.target or self.default_targets(model.model_type) or (ALL_LINEAR,), model)

    def _kept(self, d_out: int, d_in: int) -> int:
        """OSFModel._create_and_replace: how many singular values stay."""
        least = min(d_out, d_in)
        if self.effective_rank is None:
            return least // 2
        return min(least, int(least * self.effective_rank if self.effective_rank <= 1 else self.effective_rank))

    def sizes(self, targets: Sequence[tuple[int, int]]) -> Sequence[int]:
        """Downwards: what is kept does not train. Up to 1 it is a share."""
        return range(min(map(min, targets)) - 1, 1, -1)

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """peft 0.21.2, tuners/osf/layer.py, Linear.forward."""
        if w.turned:
            raise InvalidWorkload(f"--method osf adapts torch.nn.Linear only: peft passes over {name}, a Conv1D")
        kept = self._kept(w.d_out, w.d_in)
        low = min(w.d_out, w.d_in) - kept
        if not kept:
            raise InvalidWorkload(f"--effective-rank keeps 0 of {low} singular values of {name}: peft asks for one")
        shapes = {"S_low": (low,), "U_low": (w.d_out, low), "V_low": (low, w.d_in)}
        s, u, v = (m.adapter(name, f"osf_svd_params.default.{part}", shape) for part, shape in shapes.items())
        u0, s0, v0 = (
            m.adapter(name, f"_osf_{part}_init.default", shapes[part], "buffer") for part in ("U_low", "S_low", "V_low")
        )
        if w.d_out > w.d_in:
            m.adapter(name, "_osf_U_high.default", (w.d_out, kept), "buffer")
        if w.d_out < w.d_in:
            m.adapter(name, "_osf_V_high.default", (kept, w.d_in), "buffer")
        result = w.linear(x)
        a = cat(mul(u, view(s, (1, low))), neg(mul(u0, view(s0, (1, low)))), 1)
        b = cat(v, v0, 0)
        x_cast = cast(x, a.dtype)
        h = linear(x_cast, b)
        update = linear(h, a)
        result = add(result, cast(update, x.dtype))
        return result

    def making(self, m: "Builder", module: str, *, frozen: bool, raised: bool) -> Iterator[str]:
        """decompose_weight_matrix, then OSFLayer.update_layer: the weight's decomposition in fp32, and its parts.

        Where parameters are not raised to fp32 afterwards, hooks of theirs survive that project gradients.
        """
        weight = m.parameters.get(f"{module}.weight")
        if weight is None:
            raise InvalidWorkload(f"--method osf decomposes the weight of {module}: peft cannot with a packed one")
        if weight.dtype not in HALF or not raised:
            raise NotModelled(
                "estimate writes --method osf over half precision, with adapters in fp32: memcalc trace runs the rest"
            )
        (d_out, d_in), dtype = weight.shape, weight.dtype
        least, kept = min(d_out, d_in), self._kept(d_out, d_in)
        decomposed = [_block(shape, "fp32") for shape in ((d_out, d_in), (d_out, least), (least,), (least, d_in))]
        held: list[Array] = []
        turned = _by_rows((d_out, kept), copied=kept > 1)
        if d_out > d_in:
            yield "_osf_U_high.default"
        else:
            held.append(_block((d_out, kept), dtype))
        del turned
        held.append(_block((kept,), dtype))
        turned = _by_rows((kept, d_in), copied=not on_cuda())
        if d_out < d_in:
            yield "_osf_V_high.default"
        else:
            held.append(_block((kept, d_in), dtype))
        del turned
        turned = _by_rows((d_out, least - kept), copied=least - kept > 1)
        yield "osf_svd_params.default.U_low"
        del turned
        yield "osf_svd_params.default.S_low"
        turned = _by_rows((least - kept, d_in), copied=not on_cuda())
        yield "osf_svd_params.default.V_low"
        del turned
        decomposed.clear()
        yield ""
        held.clear()

    def peft_config(self) -> dict[str, Any]:
        rank = self.effective_rank
        return {
            "peft_type": "OSF",
            "effective_rank": rank if rank is None or rank <= 1 else int(rank),
            "target_modules": self.target_modules,
        }


def _by_rows(shape: tuple[int, int], *, copied: bool) -> Array | None:
    """Singular vectors laid out by rows, in fp32: a copy where they lie by columns, as LAPACK leaves them, cuSOLVER
    the left ones.
    """
    return _block(shape, "fp32") if copied else None


def _block(shape: tuple[int, ...], dtype: str) -> Array:
    return new(shape, dtype, "svd", "adapter")


METHOD = Osf
