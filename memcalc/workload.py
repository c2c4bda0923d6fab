"""The input of every tier: all that decides memory, resolved and checked once.

`Workload.of("llama-3.1-8b", method="qlora", batch=8)` is the one door: the command line, the Python
functions and JSON all come through it, with only the options that were given. What was not given is
resolved (a preset of the loop, a consequence of quantization), so that below this floor every field
means what it says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from memcalc import methods
from memcalc.catalog.find import DEFAULT_GPU, Model, find_gpu, find_model
from memcalc.errors import InvalidWorkload, UnknownName, shown
from memcalc.kernels import Gpu
from memcalc.methods.base import Method
from memcalc.options import coerced, names_of, option, options_of
from memcalc.resolving import check, resolve

_INFORMATIVE = ("attention_kernel", "model_config")  # keys of a workload's JSON that are no options


@dataclass(frozen=True)
class Workload:
    """One fine-tuning run. Every field is resolved: no "auto" that a lower floor would have to guess,
    except `attention`, whose kernel only the model can settle.
    """

    model: Model
    method_name: str
    method: Method
    gpu: Gpu
    batch: int = option(
        1,
        "--batch",
        "micro-batch: sequences per forward",
        aliases=("--batch-size", "--micro-batch", "--per-device-train-batch-size"),
    )
    seq_len: int = option(
        1024,
        "--seq-len",
        "real tokens per sequence; virtual tokens come on top",
        aliases=("--seq-length", "--max-length", "--max-seq-length", "--sequence-length"),
    )
    padded: bool = option(
        False, "--padded/--no-padded", "pass an attention mask whose one zero is the last token of the last row"
    )
    grad_accum: int = option(
        1,
        "--grad-accum",
        "micro-batches per optimizer step",
        aliases=("--gradient-accumulation-steps", "--grad-accumulation"),
    )
    dtype: str = option(
        "bf16",
        "--dtype",
        "stored base weights, and compute dtype of a quantized base",
        choices=("fp32", "bf16", "fp16"),
        aliases=("--torch-dtype",),
    )
    amp: str = option(
        "none",
        "--amp",
        "autocast dtype; fp16 runs with GradScaler",
        choices=("none", "bf16", "fp16"),
        aliases=("--autocast",),
    )
    quant: str = option(
        "none",
        "--quant",
        "format of the frozen base weights: none, nf4, fp4, int8, gptq, awq, gguf:TYPE",
        aliases=("--quantization",),
    )
    double_quant: bool = option(
        False, "--double-quant/--no-double-quant", "quantize the quantization constants too (nf4, fp4)"
    )
    kbit_prepare: str = option(
        "none",
        "--kbit-prepare",
        "raise norms, embeddings and head to fp32 as peft does, or as TRL does (embeddings and head back to bf16)",
        choices=("none", "peft", "trl"),
    )
    autocast_adapter_dtype: bool = option(
        True,
        "--autocast-adapter-dtype/--no-autocast-adapter-dtype",
        "keep adapters in fp32 over a half-precision base, as peft does",
    )
    optimizer: str = option(
        "adamw_torch_fused",
        "--optimizer",
        "Hugging Face's names: adamw_torch (foreach), adamw_torch_fused, adafactor, …; memcalc optimizers lists them",
        aliases=("--optim",),
    )
    momentum: float = option(0.0, "--momentum", "momentum of sgd and rmsprop")
    checkpointing: bool = option(
        False,
        "--checkpointing/--no-checkpointing",
        "gradient checkpointing, every layer",
        aliases=("--gradient-checkpointing", "--grad-ckpt", "--activation-checkpointing"),
    )
    checkpoint_every: int = option(1, "--checkpoint-every", "checkpoint one layer in K")
    reentrant: bool = option(False, "--reentrant/--no-reentrant", "reentrant checkpointing (use_reentrant=True)")
    attention: str = option(
        "auto",
        "--attention",
        "auto: what transformers picks; sdpa: the kernel CUDA picks; flash: the flash-attn library; "
        "the last four pin one sdpa kernel",
        choices=("auto", "eager", "sdpa", "flash", "sdpa-flash", "efficient", "cudnn", "math"),
        aliases=("--attn-implementation", "--attn"),
    )
    loss: str = option("nll", "--loss", "loss kernel", choices=("nll", "chunked-nll", "liger", "cce"))
    neftune_alpha: float | None = option(
        None,
        "--neftune-alpha",
        "noise is added to the token embeddings in training (NEFTune): its strength, or none",
        aliases=("--neftune-noise-alpha",),
    )
    use_cache: bool = option(False, "--use-cache/--no-use-cache", "a KV cache is filled in the forward")
    mode: str = option(
        "train",
        "--mode",
        "a training step, or one forward with a KV cache under inference_mode",
        choices=("train", "inference"),
    )
    merged: bool = option(False, "--merged/--no-merged", "adapters are merged into the base weights (inference)")
    loop: str = option(
        "trainer",
        "--loop",
        "whose habits: Hugging Face's Trainer, or a hand-written loop",
        choices=("trainer", "plain"),
    )
    keep_logits: str = option(
        "none",
        "--keep-logits",
        "how long the loop keeps the model's output",
        choices=("none", "backward", "step", "next"),
    )
    zero_grad: str = option(
        "none", "--zero-grad", "gradients are set to none, or to zeros that stay allocated", choices=("none", "zero")
    )
    clip: float | None = option(None, "--clip", "largest gradient norm, or none", aliases=("--max-grad-norm",))
    history: tuple[str, ...] = option(
        ("same",),
        "--history",
        "what ran before the measured step in this process: none, or a comma list of same, lengths, "
        "empty (empty_cache)",
    )
    load: str = option(
        "to",
        "--load",
        "how weights reach the device: parameter by parameter, or from_pretrained(device_map=…)",
        choices=("to", "device-map"),
    )
    device: str = option(
        "cuda",
        "--device",
        "cuda, or cpu: what PyTorch's CPU allocator would hold; profile also measures on mps and xpu",
        choices=("cuda", "cpu", "mps", "xpu"),
    )
    alloc_conf: str = option("", "--alloc-conf", "PyTorch's allocator settings, in PYTORCH_CUDA_ALLOC_CONF's syntax")

    @classmethod
    def of(cls, /, model: str | Model, method: str = "lora", *, gpu: str | Gpu | None = None, **given: Any) -> Self:
        """The workload that these options mean; what was not given is resolved as the contract says.

        Raises InvalidWorkload, UnknownName or BadFile with one line for the user.
        """
        for name, value in (("method", method), ("model", model), ("gpu", "" if gpu is None else gpu)):
            if not isinstance(value, str | Model | Gpu):
                raise InvalidWorkload(f"--{name}: a name, not {shown(value)}")
        method_name = methods.canonical_name(method)
        method_file = methods.load(method_name)
        own, foreign = _sorted_out(given, cls, method_file.METHOD)
        _imply(own, foreign, method_name, method_file)
        found = model if isinstance(model, Model) else find_model(model)
        made = method_file.METHOD(**coerced(method_file.METHOD, foreign))
        workload = cls(
            model=found,
            method_name=method_name,
            method=made,
            gpu=gpu if isinstance(gpu, Gpu) else find_gpu(DEFAULT_GPU if gpu is None else gpu),
            **resolve(coerced(cls, own), found.config, made),
        )
        check(workload)
        return workload

    @property
    def training(self) -> bool:
        return self.mode == "train"

    @property
    def unscales(self) -> bool:
        """Whether the loop has GradScaler unscale gradients before the optimizer's step, to clip them."""
        return self.loop == "trainer" or self.clip is not None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is possible but hardly meant."""
        found = []
        if self.device == "cuda" and "bf16" in (self.dtype, self.amp) and self.gpu.capability < (8, 0):
            found.append(f"{self.gpu.name} has no bf16 units: it runs, slowly, and needs the same memory as fp16")
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """All options, resolved, as plain JSON values; `from_json` of them is this workload again."""
        fields = {name: getattr(self, name) for name in options_of(type(self))}
        fields["history"] = ",".join(self.history) or "none"
        fields |= {name: "none" for name in ("clip", "neftune_alpha") if fields[name] is None}
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
        """The workload of `to_json`, or of any part of it that names a model."""
        options = {key: value for key, value in data.items() if key not in _INFORMATIVE}
        config = data.get("model_config")
        if "model" not in options:
            raise InvalidWorkload("a workload needs a model")
        if isinstance(config, Mapping):
            options["model"] = Model(name=str(data["model"]), config=dict(config), source="json")
        return cls.of(**options)


def _sorted_out(given: Mapping[str, Any], cls: type, method: type[Method]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options under their canonical names: the workload's own, and the method's."""
    own: dict[str, Any] = {}
    foreign: dict[str, Any] = {}
    tables = [(names_of(cls), own), (names_of(method), foreign)]
    for name, value in given.items():
        plain = name.replace("-", "_")
        for names, target in tables:
            if plain in names:
                target[names[plain]] = value
                break
        else:
            raise UnknownName("option", name, [known for names, _ in tables for known in names])
    return own, foreign


def _imply(own: dict[str, Any], foreign: dict[str, Any], method_name: str, method_file: methods.MethodFile) -> None:
    """What the method's name stands for. A number may be another, a word only be said more precisely (pissa_niter_16
    for pissa); a switch of the workload may be turned off again, one of the method's would make it another method.
    """
    methods_own = options_of(method_file.METHOD)
    for name, value in method_file.IMPLIES.items():
        given = (foreign if name in methods_own else own).setdefault(name, value)
        fixed = name in methods_own if isinstance(value, bool) else isinstance(value, str)
        taken_away = given in (None, "none")
        more_precise = isinstance(value, str) and str(given).startswith(value)
        if (fixed or taken_away) and given != value and not more_precise:
            flag = f"--{name.replace('_', '-')}"
            meant = ",".join(value) if isinstance(value, tuple) else value
            raise InvalidWorkload(f"--method {method_name} means {flag} {meant}: it cannot go with {flag} {given}")
