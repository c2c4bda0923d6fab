"""What this machine can do for memcalc, what not, and why."""

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from memcalc.profiling.card import settings
from memcalc.profiling.device import no_cuda
from memcalc.profiling.facts import Facts, Unmeasurable
from memcalc.profiling.nvml import Nvml, open_nvml

PACKAGES = (
    "torch", "transformers", "peft", "accelerate", "bitsandbytes", "flash-attn", "nvidia-ml-py", "huggingface_hub",
    "safetensors",
)  # fmt: skip

_NEEDED = ("torch", "transformers", "peft", "accelerate")


class Findings:
    """`facts` of the machine, and for each thing that memcalc does the reason why it cannot be done here, or ""."""

    def __init__(self) -> None:
        self.facts = Facts()
        self.obstacles: dict[str, str] = {}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; a null stands beside a reason in `unavailable`, a false in `obstacles`."""
        return {
            "schema": "memcalc.doctor/1",
            "can": {name: not reason for name, reason in self.obstacles.items()},
            "obstacles": {name: reason for name, reason in self.obstacles.items() if reason},
            "facts": self.facts.values,
            "unavailable": self.facts.unavailable,
        }


def examine(trace_lacks: Callable[[], str], nvml: Nvml | None = None) -> Findings:
    """Look at everything, loading torch where it is there. `trace_lacks` says what trace misses in this torch."""
    findings = Findings()
    facts, obstacles = findings.facts, findings.obstacles
    facts.values["python"], facts.values["platform"] = platform.python_version(), platform.platform()
    facts.note("cpus", os.cpu_count(), "this system does not tell")
    facts.read("host_memory_free", _host_memory_free)
    facts.read("disk_free", _disk_free)
    for package in PACKAGES:
        facts.read(package, lambda package=package: _version(package))  # type: ignore[misc]
    facts.values["environment"] = settings()
    torch_lacks = "torch is not installed" if facts.values["torch"] is None else _refusal(_load_torch)
    missing = next((name for name in _NEEDED if facts.values[name] is None), None)
    libraries = torch_lacks or (f"{missing} is not installed: pip install 'memcalc[trace]'" if missing else "")
    obstacles["estimate"] = ""
    obstacles["trace"] = libraries or _lacking(trace_lacks)
    obstacles["trace, 4-bit and 8-bit"] = obstacles["trace"] or _package("bitsandbytes")
    obstacles["profile --device cpu"] = obstacles["trace"]
    if torch_lacks:
        obstacles["profile on a GPU"] = torch_lacks
    else:
        _devices(facts, obstacles, nvml or open_nvml(), libraries)
    return findings


def _devices(facts: Facts, obstacles: dict[str, str], nvml: Nvml, libraries: str) -> None:
    """What torch and the driver tell of devices; no context is created."""
    import torch

    facts.note("cuda", torch.version.cuda, "this torch is built without CUDA")
    facts.note("cudnn", torch.backends.cudnn.version(), "this torch is built without cuDNN")
    facts.read("driver", nvml.driver)
    no_card = no_cuda(torch)
    facts.note("devices", None if no_card else _cards(torch), no_card)
    facts.read("used_by_card", lambda: {uuid: nvml.used(uuid) for uuid in nvml.cards()})
    for kind in ("xpu", "mps"):
        there = getattr(torch, kind, None) is not None and getattr(torch, kind).is_available()
        obstacles[f"profile --device {kind}"] = libraries or ("" if there else "no such device here")
    obstacles["profile --device cuda"] = here = libraries or no_card
    obstacles["profile: memory of the card"] = here or _refusal(lambda: list(map(nvml.used, nvml.cards())))
    obstacles["profile: memory of the process"] = here or _refusal(lambda: list(map(nvml.processes, nvml.cards())))
    obstacles["profile: categories at the peak"] = here or _recording(torch)
    obstacles["profile --attention flash"] = here or _package("flash-attn")


def _cards(torch: Any) -> list[dict[str, Any]]:
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        capability = f"{properties.major}.{properties.minor}"
        found.append({"name": properties.name, "capability": capability, "memory": properties.total_memory})
    return found


def _recording(torch: Any) -> str:
    names = ("_record_memory_history", "_snapshot")
    lacking = [name for name in names if not hasattr(torch.cuda.memory, name)]
    return f"torch {torch.__version__} lacks torch.cuda.memory.{lacking[0]}" if lacking else ""


def _refusal(figure: Callable[[], object]) -> str:
    try:
        figure()
    except Unmeasurable as refusal:
        return str(refusal)
    return ""


def _load_torch() -> None:
    try:
        import torch  # noqa: F401
    except Exception as error:  # noqa: BLE001 - as below
        raise Unmeasurable(f"torch does not load: {_first_line(error)}") from None


def _lacking(trace_lacks: Callable[[], str]) -> str:
    try:
        lacking = trace_lacks()
    except Exception as error:  # noqa: BLE001 - a broken installation is what a doctor is for
        return f"the self-test fails: {_first_line(error)}"
    return f"this torch lacks {lacking}" if lacking else ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _package(name: str) -> str:
    found = importlib.util.find_spec(name.replace("-", "_")) is not None
    return "" if found else f"the package {name} is not installed"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        raise Unmeasurable("not installed") from None


def _host_memory_free() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines: Mapping[str, str] = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        raise Unmeasurable("this system has no /proc/meminfo") from None


def _disk_free() -> int:
    """Where the hub's files go."""
    place = os.path.abspath(os.path.expanduser(os.environ.get("HF_HOME") or "~/.cache/huggingface"))
    while not os.path.exists(place):
        place = os.path.dirname(place)
    return shutil.disk_usage(place).free
