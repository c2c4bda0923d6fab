"""The input of every tier: all that decides memory, resolved and checked once.

`Workload.of("llama-3.1-8b", method="qlora", batch=8)` is the one door: the command line, the Python
functions and JSON all come through it, with only the options that were given. What was not given is
resolved here (a preset of the loop, a consequence of quantization), so that below this floor every
field means what it says.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from memcalc import methods
from memcalc.allocator import parse_alloc_conf
from memcalc.catalog.find import DEFAULT_GPU, Model, find_gpu, find_model
from memcalc.errors import InvalidWorkload, UnknownName, shown
from memcalc.kernels import Gpu
from memcalc.methods.base import Method
from memcalc.optimizers import OPTIMIZERS, canonical_optimizer
from memcalc.options import option, options_of

DTYPES = ("fp32", "bf16", "fp16")
QUANTS = ("none", "nf4", "fp4", "int8", "gptq", "awq")  # and gguf:TYPE
ATTENTIONS = ("auto", "eager", "sdpa", "flash", "sdpa-flash", "efficient", "cudnn", "math")
LOSSES = ("nll", "chunked-nll", "liger", "cce")
LOOPS: dict[str, dict[str, Any]] = {
    "trainer": {"keep_logits": "none", "zero_grad": "none", "clip": 1.0},
    "plain": {"keep_logits": "next", "zero_grad": "none", "clip": None},
}
LARGEST = 2**31 - 1  # of any one size: indices of CUDA kernels are 32 bits wide


@dataclass(frozen=True)
class Workload:
    """One fine-tuning run. Every field is resolved: no "auto" that a lower floor would have to guess,
    except `attention`, whose kernel only the model can settle.
    """

    model: Model
    method_name: str
    method: Method
    gpu: Gpu
    batch: int = option(1, "--batch", "micro-batch: sequences per forward", aliases=("--batch-size", "--micro-batch", "--per-device-train-batch-size"))
    seq_len: int = option(1024, "--seq-len", "real tokens per sequence; virtual tokens come on top", aliases=("--seq-length", "--max-length", "--max-seq-length", "--sequence-length"))
    padded: bool = option(False, "--padded/--no-padded", "pass an attention mask whose one zero is the last token of the last row")
    grad_accum: int = option(1, "--grad-accum", "micro-batches per optimizer step", aliases=("--gradient-accumulation-steps", "--grad-accumulation"))
    dtype: str = option("bf16", "--dtype", "stored base weights, and compute dtype of a quantized base", choices=DTYPES, aliases=("--torch-dtype",))
    amp: str = option("none", "--amp", "autocast dtype; fp16 runs with GradScaler", choices=("none", "bf16", "fp16"), aliases=("--autocast",))
    quant: str = option("none", "--quant", "format of the frozen base weights: none, nf4, fp4, int8, gptq, awq, gguf:TYPE", aliases=("--quantization",))
    double_quant: bool = option(False, "--double-quant/--no-double-quant", "quantize the quantization constants too (nf4, fp4)")
    kbit_prepare: str = option("none", "--kbit-prepare", "raise norms, embeddings and head to fp32 as peft does, or as TRL does (embeddings and head back to bf16)", choices=("none", "peft", "trl"))
    autocast_adapter_dtype: bool = option(True, "--autocast-adapter-dtype/--no-autocast-adapter-dtype", "keep adapters in fp32 over a half-precision base, as peft does")
    optimizer: str = option("adamw_torch_fused", "--optimizer", "Hugging Face's names: adamw_torch (foreach), adamw_torch_fused, adamw_torch_forloop, sgd", aliases=("--optim",))
    momentum: float = option(0.0, "--momentum", "momentum of sgd")
    checkpointing: bool = option(False, "--checkpointing/--no-checkpointing", "gradient checkpointing, every layer", aliases=("--gradient-checkpointing", "--grad-ckpt", "--activation-checkpointing"))
    checkpoint_every: int = option(1, "--checkpoint-every", "checkpoint one layer in K")
    reentrant: bool = option(False, "--reentrant/--no-reentrant", "reentrant checkpointing (use_reentrant=True)")
    attention: str = option("auto", "--attention", "auto: what transformers picks; sdpa: the kernel CUDA picks; flash: the flash-attn library; the last four pin one sdpa kernel", choices=ATTENTIONS, aliases=("--attn-implementation", "--attn"))
    loss: str = option("nll", "--loss", "loss kernel", choices=LOSSES)
    use_cache: bool = option(False, "--use-cache/--no-use-cache", "a KV cache is filled in the forward")
    mode: str = option("train", "--mode", "a training step, or one forward with a KV cache under inference_mode", choices=("train", "inference"))
    merged: bool = option(False, "--merged/--no-merged", "adapters are merged into the base weights (inference)")
    loop: Literal["trainer", "plain"] = option("trainer", "--loop", "whose habits: Hugging Face's Trainer, or a hand-written loop", choices=tuple(LOOPS))
    keep_logits: str = option("none", "--keep-logits", "how long the loop keeps the model's output", choices=("none", "backward", "step", "next"))
    zero_grad: str = option("none", "--zero-grad", "gradients are set to none, or to zeros that stay allocated", choices=("none", "zero"))
    clip: float | None = option(None, "--clip", "largest gradient norm, or none", aliases=("--max-grad-norm",))
    history: tuple[str, ...] = option(("same",), "--history", "what ran before the measured step in this process: none, or a comma list of same, lengths, empty (empty_cache)")
    load: str = option("to", "--load", "how weights reach the device: parameter by parameter, or from_pretrained(device_map=…)", choices=("to", "device-map"))
    device: str = option("cuda", "--device", "cuda, or cpu: what PyTorch's CPU allocator would hold", choices=("cuda", "cpu"))
    alloc_conf: str = option("", "--alloc-conf", "PyTorch's allocator settings, in PYTORCH_CUDA_ALLOC_CONF's syntax")

    @classmethod
    def of(cls, model: str | Model, method: str = "lora", *, gpu: str | Gpu | None = None, **given: Any) -> Self:
        """The workload that these options mean; what was not given is resolved as the contract says.

        Raises InvalidWorkload or UnknownName with one line for the user.
        """
        method_name = methods.canonical_name(method)
        method_module = methods.load(method_name)
        own, foreign = _sorted_out(given, cls, method_module.METHOD)
        for name, implied in method_module.IMPLIES.items():
            if name in own and own[name] != implied and name != "double_quant":
                raise InvalidWorkload(f"--method {method_name} means {name} {implied}: it cannot go with --{name.replace('_', '-')} {own[name]}")
            own.setdefault(name, implied)
        found = model if isinstance(model, Model) else find_model(model)
        _check_types(own, cls)
        resolved = _resolve(own, found)
        card = gpu if isinstance(gpu, Gpu) else find_gpu(gpu or DEFAULT_GPU)
        try:
            chosen = method_module.METHOD(**foreign)
        except TypeError as error:
            raise InvalidWorkload(f"--method {method_name}: {error}") from None
        workload = cls(model=found, method_name=method_name, method=chosen, gpu=card, **resolved)
        _check(workload, given)
        return workload

    @property
    def compute_dtype(self) -> str:
        """The dtype in which linear layers multiply: autocast's where there is one, else the stored one."""
        return self.dtype if self.amp == "none" else self.amp

    @property
    def training(self) -> bool:
        return self.mode == "train"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is possible but hardly meant."""
        found = []
        if self.device == "cuda" and "bf16" in (self.dtype, self.amp) and self.gpu.capability < (8, 0):
            found.append(f"{self.gpu.name} has no bf16 units (compute capability {self.gpu.capability[0]}.{self.gpu.capability[1]}): it runs, slowly; memory is the same as fp16's")
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """All options, resolved, as plain JSON values; `of(**…)` of them is this workload again."""
        fields = {name: getattr(self, name) for name in options_of(type(self))}
        fields["history"] = ",".join(self.history)
        fields["clip"] = "none" if self.clip is None else self.clip
        return {
            "model": self.model.name,
            "model_config": dict(self.model.config),
            "method": self.method_name,
            **self.method.options(),
            "gpu": self.gpu.key if self.gpu.memory_source != "given" else f"{self.gpu.memory_bytes}B",
            **fields,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The workload of `to_json`, or of any subset that names a model; keys that only inform are passed over."""
        options = {key: value for key, value in data.items() if key not in ("attention_kernel", "model_config")}
        config = data.get("model_config")
        if isinstance(config, Mapping):
            options["model"] = Model(name=str(data["model"]), config=dict(config), source="json")
        return cls.of(**options)


def _sorted_out(given: Mapping[str, Any], cls: type, method: type[Method]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options under their canonical names: the workload's own, and the method's."""
    own: dict[str, Any] = {}
    foreign: dict[str, Any] = {}
    tables = [(_names(cls), own), (_names(method), foreign)]
    for name, value in given.items():
        plain = name.replace("-", "_")
        for names, target in tables:
            if plain in names:
                target[names[plain]] = value
                break
        else:
            known = [known for names, _ in tables for known in names]
            raise UnknownName("option", name, known)
    return own, foreign


def _names(cls: type) -> dict[str, str]:
    """Every name under which a field may be given → the field's name."""
    return {alias: field for field, described in options_of(cls).items() for alias in (field, *described.names)}


def _check_types(own: dict[str, Any], cls: type) -> None:
    """Coerce what JSON and people write ("none", 8.0, a comma list) and refuse what is of another type."""
    described = options_of(cls)
    for field in dataclasses.fields(cls):
        if field.name not in own:
            continue
        value, flag = own[field.name], described[field.name].flag.split("/")[0]
        if field.name == "history":
            own["history"] = _history(value)
        elif field.name == "clip":
            own["clip"] = None if value in (None, "none") else _number(value, flag, above=0.0)
        elif field.name == "optimizer":
            own["optimizer"] = canonical_optimizer(str(value))
        elif isinstance(field.default, bool):
            if not isinstance(value, bool):
                raise InvalidWorkload(f"{flag} is a switch: true or false, not {shown(value)}")
        elif isinstance(field.default, int):
            own[field.name] = _integer(value, flag)
        elif isinstance(field.default, float):
            own[field.name] = _number(value, flag)
        else:
            own[field.name] = _choice(value, flag, described[field.name].choices)


def _integer(value: object, flag: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value not in range(1, LARGEST + 1):
        raise InvalidWorkload(f"{flag} must be a whole number from 1 to {LARGEST:,}, not {shown(value)}")
    return int(value)


def _number(value: object, flag: str, above: float | None = None) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidWorkload(f"{flag} must be a finite number, not {shown(value)}")
    if value < 0 or (above is not None and value <= above):
        raise InvalidWorkload(f"{flag} must be {'above' if above is not None else 'at least'} 0, not {shown(value)}")
    return float(value)


def _choice(value: object, flag: str, choices: tuple[str, ...]) -> str:
    text = str(value)
    for choice in choices:
        if text.lower().replace("_", "-") == choice:
            return choice
    if choices:
        raise InvalidWorkload(f"{flag} {shown(text)} is not one of {', '.join(choices)}")
    return text


def _history(value: object) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise InvalidWorkload(f"--history is none or a comma list of same, lengths, empty, not {shown(value)}")
    history = tuple(str(item).strip() for item in items)
    if history in (("none",), ()):
        return ()
    for item in history:
        if item not in ("same", "empty") and not (item.isascii() and item.isdigit() and 1 <= int(item[:10]) <= LARGEST):
            raise InvalidWorkload(f"--history {shown(item)}: each item is same, a sequence length or empty")
    return history


def _resolve(own: dict[str, Any], model: Model) -> dict[str, Any]:
    """Fill in what the given options imply, and the loop's preset. Explicit options win over both."""
    resolved = dict(own)
    training = resolved.setdefault("mode", "train") == "train"
    quant = resolved.setdefault("quant", "none")
    resolved.setdefault("kbit_prepare", "peft" if training and quant in ("nf4", "fp4", "int8") else "none")
    resolved.setdefault("checkpointing", training and resolved["kbit_prepare"] != "none")
    for name, value in LOOPS[resolved.setdefault("loop", "trainer")].items():
        resolved.setdefault(name, value)
    configured = model.config.get("use_cache", True) is not False
    cached = configured and resolved["loop"] == "plain" and not resolved["checkpointing"]
    resolved.setdefault("use_cache", cached if training else True)
    resolved.setdefault("history", ("same",) if training else ())
    resolved.setdefault("load", "to" if quant == "none" else "device-map")
    return resolved


def _check(w: Workload, given: Mapping[str, Any]) -> None:
    """Refuse what cannot be, naming both options."""
    if w.optimizer not in OPTIMIZERS:
        raise UnknownName("optimizer", w.optimizer, OPTIMIZERS)
    if w.quant not in QUANTS and not w.quant.startswith("gguf:"):
        raise UnknownName("quantization", w.quant, QUANTS)
    if w.double_quant and w.quant not in ("nf4", "fp4"):
        raise InvalidWorkload(f"--double-quant needs --quant nf4 or fp4, not --quant {w.quant}")
    if w.kbit_prepare != "none" and w.quant == "none":
        raise InvalidWorkload(f"--kbit-prepare {w.kbit_prepare} needs a quantized base: give --quant as well")
    if w.kbit_prepare == "trl" and w.dtype != "bf16" and w.amp != "bf16":
        raise InvalidWorkload("--kbit-prepare trl casts to bf16: it goes with --dtype bf16 or --amp bf16 only")
    if w.training and w.merged:
        raise InvalidWorkload("--merged goes with --mode inference only")
    if not w.training and w.checkpointing:
        raise InvalidWorkload("--checkpointing needs a backward: it cannot go with --mode inference")
    if w.use_cache and w.checkpointing:
        raise InvalidWorkload("--use-cache cannot go with --checkpointing: transformers drops the cache when it recomputes")
    if w.checkpoint_every != 1 and not w.checkpointing:
        raise InvalidWorkload("--checkpoint-every needs --checkpointing")
    if w.momentum and w.optimizer != "sgd":
        raise InvalidWorkload(f"--momentum belongs to --optimizer sgd, not {w.optimizer}")
    half = {w.dtype, w.amp} & {"bf16", "fp16"}
    if w.attention in ("flash", "sdpa-flash", "cudnn") and not half:
        raise InvalidWorkload(f"--attention {w.attention} computes in half precision: it cannot go with --dtype fp32 and --amp none")
    if w.attention in ("flash", "sdpa-flash") and w.device == "cuda" and w.gpu.capability < (8, 0):
        raise InvalidWorkload(f"--attention {w.attention} needs compute capability 8.0: {w.gpu.name} has {w.gpu.capability[0]}.{w.gpu.capability[1]}")
    if w.attention in ("sdpa-flash", "cudnn") and w.padded:
        raise InvalidWorkload(f"--attention {w.attention} takes no mask: it cannot go with --padded")
    if w.alloc_conf:
        parse_alloc_conf(w.alloc_conf)
