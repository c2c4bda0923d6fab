"""LoRA: a frozen weight plus a low-rank update."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, final

from memcalc.anatomy import ALL_LINEAR, Anatomy, copied_modules, names_a_layer
from memcalc.errors import InvalidWorkload, NotModelled, shown
from memcalc.methods.base import Attend, Attended, OptimizerMaker, check_dropout
from memcalc.methods.linears import OnLinears, target_option
from memcalc.methods.of_lora import dora, plus, shifted
from memcalc.options import LARGEST, option
from memcalc.tape.ops.elementwise import add, cast, dropout, scale
from memcalc.tape.ops.linear import linear, mm
from memcalc.tape.ops.views import clone
from memcalc.tape.tape import tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.tape import Array, Tensor
    from memcalc.tape.weights import Weight

# peft 0.21.2, tuners/lora/config.py, init_lora_weights
_OTHER_INITS = ("olora", "eva", "corda", "orthogonal", "lora_ga", "mica")
_DRAWN = ("default", "gaussian")  # whatever the weight is
_PISSA = re.compile(r"pissa(_niter_\d+)?")
_PLAIN_NAME = re.compile(r"[A-Za-z_]+(\.[A-Za-z_]+)*")  # a pattern that fits all layers or none


@final
@dataclass(frozen=True, slots=True)
class Lora(OnLinears):
    """LoRA: y = W x + (alpha / rank) B A x with W frozen (Hu et al. 2021, arXiv:2106.09685, section 4.1).

    Trainable parameters: rank * (d_in + d_out) per target, and all of the copies of modules_to_save.
    Keeps for backward: the input of each target (cast to fp32 under peft's autocast_adapter_dtype) and A x.
    """

    rank: int = option(
        8, "--rank", "rank of the update, 1 to min(d_in, d_out)", aliases=("--lora-r", "--lora-rank", "--r"), size=True
    )
    alpha: float = option(8.0, "--alpha", "the update is scaled by alpha / rank", aliases=("--lora-alpha",))
    target: tuple[str, ...] = target_option()
    lora_dropout: float = option(0.0, "--lora-dropout", "dropout of the adapters' input", aliases=("--dropout",))
    bias: str = option("none", "--bias", "which biases train", choices=("none", "all", "lora_only"))
    use_rslora: bool = option(False, "--use-rslora/--no-use-rslora", "scale by alpha / sqrt(rank) (rsLoRA)")
    use_dora: bool = option(False, "--use-dora/--no-use-dora", "train a magnitude of each output besides (DoRA)")
    modules_to_save: tuple[str, ...] = option(
        (),
        "--modules-to-save",
        "modules of which a copy trains whole, by the end of their name: lm_head, embed_tokens, …",
    )
    layers_to_transform: tuple[str, ...] = option(
        (), "--layers-to-transform", "numbers of the layers whose targets are adapted; default: all"
    )
    init_lora_weights: str = option(
        "default",
        "--init-lora-weights",
        "default or gaussian; pissa, pissa_niter_N: from the weight's largest singular values, which it loses; loftq: "
        "from those of what quantization takes from it",
    )
    loftq_bits: int = option(4, "--loftq-bits", "bits of LoftQ's quantization: 4 or 8")
    loftq_iter: int = option(1, "--loftq-iter", "rounds of LoftQ's quantization and decomposition")
    lr_ratio: float | None = option(
        None,
        "--lr-ratio",
        "learning rate of B over A's, by an optimizer with groups of its own (LoRA+)",
        aliases=("--loraplus-lr-ratio",),
    )
    restarts: bool = option(
        False, "--restarts/--no-restarts", "merge adapters into the weights every so many steps, begin anew (ReLoRA)"
    )
    trainable_params: tuple[str, ...] = option(
        (), "--trainable-params", "the base's own parameters that train besides, by any part of a name: embed, norm, …"
    )
    group_size_ratio: float | None = option(
        None,
        "--group-size-ratio",
        "attention in training sees groups of this part of the sequence, half of the heads shifted ones (LongLoRA), or "
        "none",
    )
    rank_pattern: tuple[str, ...] = option(
        (), "--rank-pattern", "other ranks, by the end of a target's name, a regular expression: q_proj=4,…", pairs=True
    )
    alpha_pattern: tuple[str, ...] = option((), "--alpha-pattern", "other alphas, likewise", pairs=True)

    def __post_init__(self) -> None:
        for layer in self.layers_to_transform:
            if not (layer.isascii() and layer.isdigit()):
                raise InvalidWorkload(f"--layers-to-transform {shown(layer)}: each item is a layer's number, from 0")
        if self.layers_to_transform and ALL_LINEAR in self.target:
            raise InvalidWorkload("--layers-to-transform cannot go with --target all-linear: name the linear layers")
        _numbers("--rank-pattern", self.rank_pattern, int)
        _numbers("--alpha-pattern", self.alpha_pattern, float)
        check_dropout("--lora-dropout", self.lora_dropout)
        if self.group_size_ratio is not None and self.group_size_ratio > 1:
            raise InvalidWorkload(f"--group-size-ratio {self.group_size_ratio:g}: a group is a part of the sequence")
        if self.restarts and self.use_dora:
            raise InvalidWorkload("--restarts cannot go with --use-dora: a magnitude has no part in what begins anew")
        self._check_init()

    def _check_init(self) -> None:
        init = self.init_lora_weights
        if init in _OTHER_INITS:
            raise NotModelled(f"--init-lora-weights {init} is not written: memcalc trace runs peft's by --peft-config")
        if init not in (*_DRAWN, "loftq") and not _PISSA.fullmatch(init):
            raise InvalidWorkload(
                f"--init-lora-weights {shown(init)} is not one of default, gaussian, pissa, pissa_niter_N, loftq"
            )
        if self.loftq_bits not in (4, 8):
            raise InvalidWorkload(f"--loftq-bits {self.loftq_bits}: peft quantizes to 4 or 8 bits")

    @property
    def layers_alike(self) -> bool:
        one_by_one = names_a_layer(self.target) or any(map(str.isdigit, "".join(self.modules_to_save)))
        plain = all(_PLAIN_NAME.fullmatch(item.rpartition("=")[0]) for item in self.rank_pattern)
        return plain and not one_by_one and not self.layers_to_transform

    @property
    def optimizer_maker(self) -> OptimizerMaker | None:
        return None if self.lr_ratio is None else plus.maker(self.lr_ratio)

    def groups(self, trained: Mapping[str, tuple[int, ...]], layer_norms: frozenset[str]) -> list[list[str]]:
        return plus.groups(trained, layer_norms)

    def targets(self, model: Anatomy) -> frozenset[str]:
        """Source: peft 0.21.2, tuners/tuners_utils.py, check_target_module_exists; utils/other.py, _set_trainable."""
        if self.group_size_ratio is not None:
            shifted.check_model(model)
        targets = super(Lora, self).targets(model)
        if self.layers_to_transform:
            wanted = self.target or self.default_targets(model.model_type)
            layers = frozenset(map(int, self.layers_to_transform))
            targets = frozenset(name for name in targets if name in wanted or _layer(name) in layers)
        if self.modules_to_save:
            flag = f"--modules-to-save {shown(','.join(self.modules_to_save))}"
            targets = frozenset(name for name in targets if not self._names_a_part_of(name))
            both = sorted(targets & copied_modules(flag, model, self._saves))
            if both:
                raise InvalidWorkload(f"{flag} and --target both name {both[0]}: it is copied, or it is adapted")
        if not targets:
            raise InvalidWorkload(
                "--target, --layers-to-transform and --modules-to-save leave no linear layer to adapt"
            )
        return targets

    def _saves(self, module: str) -> bool:
        return module.endswith(self.modules_to_save)

    def _names_a_part_of(self, module: str) -> bool:
        return any(f".{name}." in f".{module}." for name in self.modules_to_save)

    def copy_of(self, module: str, targets: frozenset[str]) -> str:
        return "modules_to_save.default" if self.modules_to_save and self._saves(module) else ""

    def trained(self, model: Anatomy, targets: frozenset[str]) -> frozenset[str]:
        biases = super(Lora, self).trained(model, targets)
        if self.bias == "all" and any(self.copy_of(name.removesuffix(".bias"), targets) for name in biases):
            raise NotModelled(
                "estimate does not write --bias all over --modules-to-save with biases: use memcalc trace"
            )
        return biases | self.thawed(model)

    def thawed(self, model: Anatomy) -> frozenset[str]:
        found = frozenset(name for name in model.parameters if any(part in name for part in self.trainable_params))
        flag = f"--trainable-params {shown(','.join(self.trainable_params))}"
        if self.trainable_params and not found:
            raise InvalidWorkload(f"{flag} is in none of the names of this model's parameters")
        copied = sorted(name for name in found if self.copy_of(name.rpartition(".")[0], frozenset()))
        if copied:
            raise InvalidWorkload(f"{flag} and --modules-to-save both name {copied[0]}: it trains, or a copy does")
        return found

    @property
    def attention_groups(self) -> float | None:
        return self.group_size_ratio

    def attend(
        self, m: "Builder", q: "Tensor", k: "Tensor", v: "Tensor", mask: "Array | None", run: Attend
    ) -> Attended:
        if self.group_size_ratio is None or not m.training:
            return run(q, k, v, mask)
        return shifted.attend(self.group_size_ratio, q, k, v, mask, run)

    def adapted(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        most, rank = min(w.d_in, w.d_out), self._rank_of(name)
        if rank > most:
            raise InvalidWorkload(f"--rank {rank} is above the {w.d_out} x {w.d_in} matrix of {name}: at most {most}")
        if self.init_lora_weights == "loftq":
            self._check_loftq(w, name)
        a = m.adapter(name, dora.A, (rank, w.d_in))
        b = m.adapter(name, dora.B, (w.d_out, rank))
        if self.use_dora and self.lora_dropout and w.turned:
            raise NotModelled("estimate does not write DoRA's dropout over Conv1D layers yet: memcalc trace runs it")
        magnitude = m.adapter(name, dora.MAGNITUDE, (w.d_out,)) if self.use_dora else None
        forward = self._over_packed if w.packed else self._over_plain
        return forward(m, x, w, a, b, magnitude)

    def _check_loftq(self, w: "Weight", name: str) -> None:
        if self.loftq_bits != 4:
            raise NotModelled("estimate does not write --loftq-bits 8: memcalc profile runs it")
        if w.turned and w.d_in != w.d_out:
            raise InvalidWorkload(
                f"--init-lora-weights loftq: peft decomposes {name}, a Conv1D, as it lies: A and B do not fit it"
            )

    def _rank_of(self, name: str) -> int:
        """The rank of the first pattern that fits. Source: peft 0.21.2, utils/other.py, get_pattern_key."""
        for item in self.rank_pattern:
            pattern, _, rank = item.rpartition("=")
            if re.match(rf"(.*\.)?({pattern})$", name):
                return int(rank)
        return self.rank

    def _over_plain(
        self, m: "Builder", x: "Tensor", w: "Weight", a: "Tensor", b: "Tensor", magnitude: "Tensor | None"
    ) -> "Tensor":
        """peft 0.21.2, tuners/lora/layer.py, Linear.forward. Where peft rebinds x, the module call keeps the first."""
        result = w.linear(x)
        dtype = result.dtype
        x_cast = cast(x, a.dtype)
        if magnitude is None:
            result = add(result, scale(linear(linear(dropout(x_cast, self._rate(m)), a), b)))
        else:
            result = dora.adapted(x_cast, result, w, a, b, magnitude, self._rate(m))
        return cast(result, dtype)

    def _over_packed(
        self, m: "Builder", x: "Tensor", w: "Weight", a: "Tensor", b: "Tensor", magnitude: "Tensor | None"
    ) -> "Tensor":
        """peft 0.21.2, tuners/lora/bnb.py, Linear4bit.forward, Linear8bitLt.forward: casts by hand outside autocast
        only. The output of four bits is cloned.
        """
        result = w.linear(x)
        if w.packed == 4:
            result = clone(result)
        by_hand = tape.autocast is None
        dtype = result.dtype
        x_cast = cast(x, a.dtype) if by_hand else x
        if magnitude is not None:
            result = dora.adapted(x_cast, result, w, a, b, magnitude, self._rate(m))
            return cast(result, dtype) if by_hand else result
        output = scale(linear(linear(dropout(x_cast, self._rate(m)), a), b))
        if by_hand:
            output = cast(output, dtype)
        return add(result, output)

    def making(self, m: "Builder", module: str, *, frozen: bool, raised: bool) -> Iterator[str]:
        """LoraLayer.update_layer: A and B, then what a variant begins with."""
        init = self.init_lora_weights
        if init in _DRAWN:
            yield from (dora.A, dora.B)
        else:
            from memcalc.methods.of_lora import from_weight, loftq, pissa

            of_loftq = partial(loftq.initialized, iterations=self.loftq_iter)
            compute = of_loftq if init == "loftq" else partial(pissa.initialized, init=init)
            yield from from_weight.making(m, module, init, compute)
        if self.use_dora:
            dora.begin(m, module)

    def merge(self, m: "Builder", module: str) -> None:
        """The product of B and A, and its scaling. Source: peft 0.21.2, tuners/lora/layer.py, get_delta_weight."""
        if self.use_dora or self.modules_to_save:
            raise NotModelled("estimate does not write --merged with DoRA or modules to save: memcalc trace runs it")
        self.restart(m, module)

    def restart(self, m: "Builder", module: str) -> None:
        product = mm(m.parameters[f"{module}.{dora.B}"], m.parameters[f"{module}.{dora.A}"])
        scale(product)

    def _rate(self, m: "Builder") -> float:
        return self.lora_dropout if m.training else 0.0

    @property
    def _loftq_config(self) -> dict[str, int]:
        return {"loftq_bits": self.loftq_bits, "loftq_iter": self.loftq_iter}

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "LORA",
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.lora_dropout,
            "target_modules": self.target_modules,
            "bias": self.bias,
            "init_lora_weights": True if self.init_lora_weights == "default" else self.init_lora_weights,
            "use_rslora": self.use_rslora,
            "use_dora": self.use_dora,
            **({"loftq_config": self._loftq_config} if self.init_lora_weights == "loftq" else {}),
            "modules_to_save": list(self.modules_to_save) or None,
            "layers_to_transform": [int(layer) for layer in self.layers_to_transform] or None,
            "rank_pattern": _numbers("--rank-pattern", self.rank_pattern, int),
            "alpha_pattern": _numbers("--alpha-pattern", self.alpha_pattern, float),
        }


def _layer(name: str) -> int | None:
    """The number of the layer that a module belongs to: the first one in its name."""
    return next((int(part) for part in name.split(".")[2:-1] if part.isdigit()), None)


def _numbers(flag: str, items: tuple[str, ...], kind: type[int] | type[float]) -> dict[str, float]:
    """PATTERN=NUMBER, …, by pattern."""
    found: dict[str, float] = {}
    for item in items:
        pattern, _, text = item.rpartition("=")
        try:
            re.compile(pattern)
            found[pattern] = kind(text)
        except (re.error, ValueError):
            raise InvalidWorkload(f"{flag} {shown(item)}: each item is PATTERN=NUMBER, such as q_proj=4") from None
        if not pattern or not 0 < found[pattern] <= LARGEST:
            raise InvalidWorkload(f"{flag} {shown(item)}: the number behind a pattern is above 0")
    return found


METHOD = Lora
