"""A device of this machine, and why there is none."""

import os
from typing import Any, NamedTuple

from memcalc.errors import NotModelled
from memcalc.profiling.memory import Accelerator, Memory, Metal
from memcalc.profiling.nvml import Nvml, open_nvml


class Device(NamedTuple):
    """Where a workload runs: torch's name of it, its allocator, the driver's word on it."""

    kind: str  # cuda, xpu, mps
    torch_name: str
    memory: Memory
    nvml: Nvml


def open_device(kind: str) -> Device:
    """The device `kind` of this machine. Raises NotModelled where there is none."""
    import torch

    if kind == "cuda":
        if reason := no_cuda(torch):
            raise NotModelled(
                f"profile finds no CUDA device: {reason}; memcalc trace runs the same step without one, --device cpu "
                "measures it here"
            )
        return Device("cuda", "cuda", Accelerator(torch.cuda), open_nvml())
    nvml = Nvml(None, f"NVML is NVIDIA's: it does not know --device {kind}")
    backend = getattr(torch, kind, None)
    if backend is None or not backend.is_available():
        raise NotModelled(f"profile finds no device {kind} here: memcalc trace runs the step without one")
    return Device(kind, kind, Metal(backend) if kind == "mps" else Accelerator(backend), nvml)


def no_cuda(torch: Any) -> str:
    """Why torch has no CUDA device here; empty where it has one."""
    if torch.cuda.is_available():  # of AMD's too
        return ""
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in {"", "-1"}:
        return "CUDA_VISIBLE_DEVICES hides all of them"
    return "torch.cuda.is_available() is false (no NVIDIA card, or no driver for this torch's CUDA)"
