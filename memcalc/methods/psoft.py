"""PSOFT: a rotation within the space of a weight's largest singular vectors."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.formats import HALF
from memcalc.methods.base import check_dropout
from memcalc.methods.linears import OnLinears, refuse_conv1d, target_option
from memcalc.options import option
from memcalc.tape.ops.elementwise import add, added_in_place, cast, dropout, mul, scale, sub
from memcalc.tape.ops.linear import matmul, mm
from memcalc.tape.ops.placing import placed_in_copy
from memcalc.tape.ops.solving import solved_from_right
from memcalc.tape.ops.views import clone, transpose, view
from memcalc.tape.tape import Tensor, new, tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight

_A, _B, _R = "_psoft_A_cache.default", "_psoft_B_cache.default", "psoft_R.default"


@final
@dataclass(frozen=True, slots=True)
class Psoft(OnLinears):
    """PSOFT: y = W x + B (R - I) A x, B A being W's part of the first `rank` singular values and R = diag(b) Q diag(a)
    with Q the Cayley transform of a skew-symmetric matrix (Wu et al. 2025, arXiv:2505.11235).

    Trainable parameters: rank * (rank - 1) / 2 and two vectors of `rank` per target; rank^2 where Q need not be
    orthogonal. Keeps for backward, per target in fp32: A x and what makes R, matrices of rank x rank, but no input: A
    and B, in fp32 buffers that no file holds, are frozen. On CUDA A is a part of the block of all right singular
    vectors, min(d_in, d_out) x d_in, which therefore stays.
    What cuSOLVER allocates for itself, to decompose weights and in each forward, is in none of this.
    """

    rank: int = option(32, "--rank", "singular values, 1 to min(d_in, d_out)", aliases=("--r", "--psoft-r"), size=True)
    psoft_alpha: int = option(32, "--psoft-alpha", "the update is scaled by alpha / rank", aliases=("--alpha",))
    target: tuple[str, ...] = target_option()
    psoft_dropout: float = option(0.0, "--psoft-dropout", "dropout of the adapters' input", aliases=("--dropout",))
    ab_svd_init: str = option(
        "psoft_init",
        "--ab-svd-init",
        "singular values are B's, or both have their roots",
        choices=("psoft_init", "pissa_init"),
    )
    psoft_svd: str = option("full", "--psoft-svd", "how they are found", choices=("full", "lowrank"))
    psoft_svd_lowrank_niter: int = option(10, "--psoft-svd-lowrank-niter", "iterations of lowrank", least=0)
    psoft_orth: bool = option(True, "--psoft-orth/--no-psoft-orth", "Q is orthogonal, not any matrix")
    psoft_mag_b: bool = option(True, "--psoft-mag-b/--no-psoft-mag-b", "train a vector b")
    psoft_mag_a: bool = option(True, "--psoft-mag-a/--no-psoft-mag-a", "train a vector a")
    use_cayley_neumann: bool = option(
        False, "--use-cayley-neumann/--no-use-cayley-neumann", "the Neumann series in place of an inverse"
    )
    num_cayley_neumann_terms: int = option(5, "--num-cayley-neumann-terms", "terms of that series")
    cayley_neumann_eps: float | None = option(None, "--cayley-neumann-eps", "how far that series may rotate")
    random_seed: int = option(0, "--random-seed", "seed of lowrank", least=0)

    def __post_init__(self) -> None:
        check_dropout("--psoft-dropout", self.psoft_dropout)
        if self.use_cayley_neumann and self.cayley_neumann_eps is not None:
            raise NotModelled("--cayley-neumann-eps acts by the values of what it bounds: memcalc profile runs it")

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """peft 0.21.2, tuners/psoft/layer.py, Linear.forward."""
        refuse_conv1d(m, w, name)
        most = min(w.d_in, w.d_out)
        if self.rank > most:
            raise InvalidWorkload(f"peft refuses this: --rank {self.rank} of {name} is above {most}, its least width")
        parts = self._parts(m, name)
        a = m.adapter(name, _A, (self.rank, w.d_in), "buffer", dtype="fp32")
        b = m.adapter(name, _B, (w.d_out, self.rank), "buffer", dtype="fp32")
        result = w.linear(x)
        dtype = result.dtype
        x_cast = cast(x, a.dtype)
        dropped = dropout(x_cast, self.psoft_dropout if m.training else 0.0)
        xa = matmul(dropped, transpose(a, 0, 1))
        xr = self._turned(xa, parts)
        delta = matmul(sub(xr, xa), transpose(b, 0, 1))
        result = add(result, scale(delta))
        return cast(result, dtype)

    def _parts(self, m: "Builder", name: str) -> dict[str, Tensor]:
        """OrthLayer's parameters and buffers."""
        rank, elements = self.rank, self.rank * (self.rank - 1) // 2
        parts = {"weight": m.adapter(name, f"{_R}.weight", (elements,) if self.psoft_orth else (rank, rank))}
        for part, there in (("vector_b", self.psoft_mag_b), ("vector_a", self.psoft_mag_a)):
            if there:
                parts[part] = m.adapter(name, f"{_R}.{part}", (rank,))
        for part in ("rows", "cols") if self.psoft_orth else ():
            parts[part] = m.adapter(name, f"{_R}.{part}", (elements,), "buffer", dtype="int64")
        return parts

    def _turned(self, x: Tensor, parts: dict[str, Tensor]) -> Tensor:
        """OrthLayer.forward."""
        matrix = self._matrix(parts)
        return matmul(x, transpose(cast(matrix, x.dtype), 0, 1))

    def _matrix(self, parts: dict[str, Tensor]) -> Tensor:
        """OrthLayer.get_matrix: R (rank, rank)."""
        matrix = parts["weight"]
        dtype = matrix.dtype
        raised = False
        if self.psoft_orth:
            skew = self._skew_symmetric(parts)
            identity = Tensor(new(skew.shape, dtype, "eye"))
            if self.use_cayley_neumann:
                matrix, _powers = self._neumann(identity, skew)
            else:
                raised = dtype in HALF
                skew = cast(skew, "fp32")
                matrix = solved_from_right(sub(identity, skew), add(identity, skew))
        if "vector_b" in parts:
            matrix = mul(view(parts["vector_b"], (self.rank, 1)), matrix)
        if "vector_a" in parts:
            matrix = mul(matrix, view(parts["vector_a"], (1, self.rank)))
        return cast(matrix, dtype) if raised else matrix

    def _skew_symmetric(self, parts: dict[str, Tensor]) -> Tensor:
        vector = parts["weight"]
        zeros = new((self.rank, self.rank), vector.dtype, "zeros")
        upper = placed_in_copy(vector, zeros, (parts["rows"].data, parts["cols"].data))
        del zeros
        return sub(upper, transpose(upper, 0, 1))

    def _neumann(self, identity: Tensor, skew: Tensor) -> tuple[Tensor, list[Tensor]]:
        """I + 2 Q + 2 Q^2 + … + Q^n, and those of its powers that are there to the end."""
        terms = self.num_cayley_neumann_terms
        total = clone(identity)
        if terms > 1:
            total = added_in_place(total, skew, scaled=True)
        if terms <= 2:
            return total, []
        squared = mm(skew, skew)
        total = added_in_place(total, squared, scaled=True)
        power = squared
        for _ in range(3, terms - 1):
            power = mm(power, skew)
            total = added_in_place(total, power, scaled=True)
        power = mm(power, skew)
        return added_in_place(total, power), [squared, power]

    def making(self, m: "Builder", module: str, *, frozen: bool, raised: bool) -> Iterator[str]:
        """PsoftLayer.update_layer: what trains, then A and B, of the weight in fp32."""
        weight = m.parameters.get(f"{module}.weight")
        if weight is None:
            raise InvalidWorkload(f"peft refuses this: PSOFT decomposes the weight of {module}, and this one is packed")
        prefix = f"{module}.{_R}"
        yield from (name.removeprefix(f"{module}.") for name in m.declared_adapters if name.startswith(prefix))
        tape.scope = module
        from memcalc.methods.of_lora import principal

        a, b = principal.subspace(weight.data, self.rank, self._iterations, rooted=self.ab_svd_init == "pissa_init")
        m.parameters[f"{module}.{_A}"], m.parameters[f"{module}.{_B}"] = Tensor(a), Tensor(b)

    @property
    def _iterations(self) -> int | None:
        """Of the fast decomposition; None: the exact one."""
        return self.psoft_svd_lowrank_niter if self.psoft_svd == "lowrank" else None

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "PSOFT",
            "r": self.rank,
            "psoft_alpha": self.psoft_alpha,
            "target_modules": self.target_modules,
            "psoft_dropout": self.psoft_dropout,
            "ab_svd_init": self.ab_svd_init,
            "psoft_svd": self.psoft_svd,
            "psoft_svd_lowrank_niter": self.psoft_svd_lowrank_niter,
            "psoft_orth": self.psoft_orth,
            "psoft_mag_b": self.psoft_mag_b,
            "psoft_mag_a": self.psoft_mag_a,
            "use_cayley_neumann": self.use_cayley_neumann,
            "num_cayley_neumann_terms": self.num_cayley_neumann_terms,
            "cayley_neumann_eps": self.cayley_neumann_eps,
            "random_seed": self.random_seed,
        }


METHOD = Psoft
