"""Lily: low-rank updates whose second matrices all layers share, mixed anew for each input."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, final

from memcalc.anatomy import ALL_LINEAR
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.methods.base import Kind
from memcalc.methods.linears import OnLinears, refuse_conv1d, target_option
from memcalc.options import option
from memcalc.tape.ops.einsum import contracted
from memcalc.tape.ops.elementwise import add, cast, scale
from memcalc.tape.ops.linear import linear, matmul
from memcalc.tape.ops.loss import softmax
from memcalc.tape.ops.reductions import average
from memcalc.tape.ops.views import reshape, view
from memcalc.tape.tape import Tensor, like

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight

_A, _B, _ROUTER = (f"lily_{part}.default.weight" for part in ("A", "B", "router"))
_MANY = 20  # names that peft shortens. Source: peft 0.21.2, utils/constants.py, MIN_TARGET_MODULES_FOR_OPTIMIZATION


class _Shares(NamedTuple):
    """What a target has in common with its likes, the same module of other layers."""

    a: str  # the target whose A it uses
    b: str  # the one whose B all of them use
    with_a: int  # how many use that A
    with_b: int
    namesakes: tuple[str, ...]  # other modules of a layer that go by the same name


@final
@dataclass(frozen=True, slots=True)
class Lily(OnLinears):
    """Lily: y = W x + scaling * (sum over e of p_e B_e) A x, p the mean of softmax(R A x) over all tokens
    (Zhong et al. 2024, arXiv:2407.09946).

    Trainable parameters: rank * d_in for every `stride_a` layers of a target, rank * num_b * d_out for all layers
    together, rank * num_b for each. Keeps for backward: as LoRA, the probabilities, and of each target the mixed B.
    """

    kind: ClassVar[Kind] = "adapter"
    merges: ClassVar[bool] = False  # how B is mixed depends on the input

    rank: int = option(32, "--rank", "rank of the update", aliases=("--r", "--lily-r"), size=True)
    stride_a: int = option(1, "--stride-a", "layers, one behind the other, that share an A", aliases=("--stride-A",))
    num_b: int = option(2, "--num-b", "matrices B that all layers share, at least 2", aliases=("--num-B",))
    scaling: float = option(1.0, "--scaling", "the update is scaled by it")
    target: tuple[str, ...] = target_option()

    def __post_init__(self) -> None:
        if self.num_b < 2:
            raise InvalidWorkload(f"peft refuses this: --num-b {self.num_b} leaves nothing to choose from: at least 2")

    @property
    def layers_alike(self) -> bool:
        """The first layer keeps the B that all are given; those of the others die as one."""
        return False

    def _shares(self, m: "Builder", name: str) -> _Shares:
        wanted = self.target or self.default_targets(m.sizes.model_type)
        return _shared(m.targets, wanted, self.stride_a)[name]

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """peft 0.21.2, tuners/lily/layer.py, Linear.forward. Where peft rebinds x, the module call keeps the first."""
        refuse_conv1d(m, w, name)
        shares = self._shares(m, name)
        _check_namesakes(m, w, name, shares)
        size_of_a = (self.rank, w.d_in)
        own = shares.a == name
        a = m.adapter(name, _A, size_of_a) if own else m.shared(name, _A, size_of_a, owner=shares.a)
        shared_b = m.shared(name, _B, (self.num_b * self.rank, w.d_out), owner=shares.b)
        router = m.adapter(name, _ROUTER, (self.num_b, self.rank))
        result = w.linear(x)
        b = view(shared_b, (self.num_b, self.rank, w.d_out))
        x_cast = cast(x, a.dtype)
        hidden = linear(x_cast, a)
        logits = linear(hidden, router)
        probabilities = softmax(logits)
        of_experts = average(reshape(probabilities, (prod(x.shape[:-1]), self.num_b)), 0)
        combined = contracted(of_experts, b, "e,eio->io")
        delta = matmul(hidden, combined)
        return add(result, cast(scale(delta), result.dtype))

    def making(self, m: "Builder", module: str, *, frozen: bool, raised: bool) -> Iterator[str]:
        """LilyLayer.update_layer: every target is given an A and a B of its own at first."""
        shares = self._shares(m, module)
        for part, owner in ((_A, shares.a), (_B, shares.b)):
            if owner == module:
                yield part
            else:
                owned = m.parameters[f"{owner}.{part}"].data
                m.noted[f"{module}.{part}"] = Tensor(like(owned, part, category="adapter"))
        yield ""

    def finish(self, m: "Builder", modules: Sequence[str]) -> None:
        """LilyModel._post_injection_hook."""
        m.noted.clear()

    def saved_bytes(self, m: "Builder", name: str, nbytes: int, *, buffer: bool, targets: int) -> int:
        """What is shared is in the file for each of those that share it."""
        for part in (_A, _B):
            if name.endswith(part):
                shares = self._shares(m, name.removesuffix(f".{part}"))
                times = shares.with_a if part == _A else shares.with_b * targets // len(m.targets)
                return nbytes * times
        return nbytes

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "LILY",
            "r": self.rank,
            "stride_A": self.stride_a,
            "num_B": self.num_b,
            "scaling": self.scaling,
            "target_modules": self.target_modules,
        }


@lru_cache(maxsize=4)
def _shared(targets: frozenset[str], wanted: tuple[str, ...], stride: int) -> dict[str, _Shares]:
    """Who shares with whom: modules that peft finds by the same word, of the same shape, from the lowest layer on.

    Source: peft 0.21.2, tuners/lily/model.py, LilyModel._post_injection_hook.
    """
    groups: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for name in targets:
        inner, layer = _in_layer(name)
        groups.setdefault((_word(name, wanted, len(targets)), inner), []).append((layer, name))
    shares: dict[str, _Shares] = {}
    for (word, inner), unordered in groups.items():
        names = [name for _, name in sorted(unordered)]
        namesakes = tuple(others[0][1] for (other, place), others in groups.items() if other == word and place != inner)
        for index, name in enumerate(names):
            first = index - index % stride
            with_a = min(stride, len(names) - first)
            shares[name] = _Shares(names[first], names[0], with_a, len(names), namesakes)
    return shares


def _in_layer(name: str) -> tuple[str, int]:
    """A module's name without its layer's number, and the number."""
    parts = name.split(".")
    at = next((index for index, part in enumerate(parts) if part.isdigit()), None)
    if at is None:
        return name, 0
    return ".".join((*parts[:at], "*", *parts[at + 1 :])), int(parts[at])


def _word(name: str, wanted: tuple[str, ...], targets: int) -> str:
    """By which word peft finds a target. For all linear layers these are full names, and if they are many, suffixes.

    Source: peft 0.21.2, tuners/tuners_utils.py, inject_adapter, _find_minimal_target_modules.
    """
    if ALL_LINEAR in wanted:
        return name.rpartition(".")[2] if targets >= _MANY else name
    if len(wanted) >= _MANY:
        raise NotModelled(f"estimate does not write --method lily with {len(wanted)} targets: memcalc trace runs it")
    found = [word for word in wanted if name.endswith(word)]
    if len(found) > 1:
        raise NotModelled(f"--target names {name} as {' and as '.join(found)}: by which one Lily shares is chance")
    return found[0]


def _check_namesakes(m: "Builder", w: "Weight", name: str, shares: _Shares) -> None:
    """Two modules of each layer, of one name and shape, would share as well."""
    for other in shares.namesakes:
        weight = m.weights.get(other)
        if weight is not None and (weight.d_out, weight.d_in) == (w.d_out, w.d_in):
            raise NotModelled(f"estimate does not write that {name} and {other} share: memcalc trace runs it")


METHOD = Lily
