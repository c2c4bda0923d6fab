"""The two records that kernels are described with: the card, and the blocks inside an op."""

from typing import Literal, NamedTuple


class Gpu(NamedTuple):
    """A graphics card as memory sees it. Data: catalog/gpus.json."""

    key: str  # "rtx4090": the catalog's name
    name: str  # "NVIDIA GeForce RTX 4090"
    capability: tuple[int, int]  # compute capability, (8, 9)
    sm_count: int
    memory_bytes: int  # what NVML reports as the device's total
    memory_source: Literal["seen", "derived", "given"]  # seen in nvidia-smi prints, derived by rule, given by the user
    context_bytes: int | None = None  # a CUDA context's share of device memory, where one was measured
    context_source: str = ""


class Scratch(NamedTuple):
    """Blocks that a kernel allocates beside its outputs, in bytes, all freed when the op returns."""

    before: tuple[int, ...] = ()  # allocated before the op's outputs
    after: tuple[int, ...] = ()  # allocated after them


ITEMSIZE = {"fp32": 4, "bf16": 2, "fp16": 2}


def round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
