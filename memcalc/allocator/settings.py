"""What PYTORCH_CUDA_ALLOC_CONF sets and memory feels.

Source: PyTorch 2.13, c10/core/AllocatorConfig.h and .cpp, c10/cuda/CUDAAllocatorConfig.h and .cpp.
"""

import re
from typing import NamedTuple

from memcalc.errors import InvalidWorkload, NotModelled, shown
from memcalc.units import MIB

MIN_BLOCK = 512  # kMinBlockSize
_INTERVALS = 16  # powers of two from 1 MiB to 64 GiB, each with its own number of divisions

_WITHOUT_EFFECT = {  # on pinned host memory, on graphs, on errors and on a device's limit, which a replay does not know
    "graph_capture_record_stream_reuse", "per_process_memory_fraction", "pinned_free_catch_all",
    "pinned_max_cached_size_mb", "pinned_max_round_threshold_mb", "pinned_num_register_threads",
    "pinned_reserve_segment_size_mb", "pinned_use_background_threads", "pinned_use_cuda_host_register",
    "release_lock_on_cudamalloc", "throw_on_cudamalloc_oom",
}  # fmt: skip


class AllocatorSettings(NamedTuple):
    """The allocator's options, in bytes."""

    expandable_segments: bool = False
    max_split_size: int | None = None  # larger blocks are never split; None: no limit
    max_non_split_rounding: int = 20 * MIB  # how much larger than asked for a block above max_split_size may be
    large_segment_size: int = 20 * MIB  # what requests between 1 and 10 MiB are cut from; a page of expandable segments
    roundup_power2_divisions: tuple[int, ...] = ()  # one number for each of the intervals; empty: off
    garbage_collection_threshold: float = 0.0  # acts near a device's limit only, so never in a replay

    def rounded(self, nbytes: list[int]) -> list[int]:
        """What the allocator makes of each request: multiples of 512, or parts of a power of two.

        Source: c10/cuda/CUDACachingAllocator.cpp, round_size, roundup_power2_next_division.
        """
        plain = [(n + 511) & -512 for n in nbytes]
        if not self.roundup_power2_divisions:
            return plain
        sizes = {n: self._rounded(n) for n in set(nbytes)}
        return [sizes[n] for n in nbytes]

    def _rounded(self, n: int) -> int:
        power = n.bit_length() - 1
        divisions = self.roundup_power2_divisions[min(max(power - 20, 0), _INTERVALS - 1)]
        if divisions <= 1 or n <= MIN_BLOCK * divisions:
            return (n + 511) & -512
        part = (1 << power) // divisions
        return -(-n // part) * part


DEFAULT = AllocatorSettings()


def parse_alloc_conf(text: str) -> AllocatorSettings:
    """The settings of a PYTORCH_CUDA_ALLOC_CONF (or PYTORCH_ALLOC_CONF) string, "key:value,key:[key:value,…]".

    Raises: InvalidWorkload where PyTorch would refuse the string, NotModelled for backend:cudaMallocAsync.
    """
    squeezed = re.sub(r"\s+", "", text)
    for variable in ("PYTORCH_CUDA_ALLOC_CONF=", "PYTORCH_ALLOC_CONF="):
        squeezed = squeezed.removeprefix(variable)
    pairs = [item.partition(":") for item in re.split(r",(?![^\[]*\])", squeezed) if item]
    settings = DEFAULT
    for key, _, value in sorted(pairs, key=lambda pair: pair[0] != "large_segment_size_mb"):  # others depend on it
        if not value:
            raise _wrong(key, "has no value: write key:value")
        if key not in _WITHOUT_EFFECT:
            settings = _set(settings, key, value)
    return settings


def _set(settings: AllocatorSettings, key: str, value: str) -> AllocatorSettings:
    match key:
        case "expandable_segments":
            if value not in {"True", "False"}:
                raise _wrong(f"{key}:{value}", "is True or False")
            return settings._replace(expandable_segments=value == "True")
        case "large_segment_size_mb":
            size = _mebibytes(key, value, 11)
            return settings._replace(large_segment_size=size, max_non_split_rounding=size)
        case "max_split_size_mb":
            return settings._replace(max_split_size=_mebibytes(key, value, settings.large_segment_size // MIB))
        case "max_non_split_rounding_mb":
            return settings._replace(max_non_split_rounding=_mebibytes(key, value, settings.large_segment_size // MIB))
        case "garbage_collection_threshold":
            if not re.fullmatch(r"0?\.\d{1,9}", value) or not float(value):
                raise _wrong(f"{key}:{value}", "is a number between 0 and 1")
            return settings._replace(garbage_collection_threshold=float(value))
        case "roundup_power2_divisions":
            return settings._replace(roundup_power2_divisions=_divisions(value))
        case "backend":
            if value == "cudaMallocAsync":
                raise NotModelled(
                    "--alloc-conf backend:cudaMallocAsync is CUDA's own allocator: profile can measure it"
                )
            if value != "native":
                raise _wrong(f"{key}:{value}", "is native or cudaMallocAsync")
            return settings
    raise _wrong(key, "is no option of PyTorch's allocator")


def _mebibytes(key: str, value: str, least: int) -> int:
    if not re.fullmatch(r"\d{1,9}", value) or int(value) < least:
        raise _wrong(f"{key}:{value}", f"is a whole number of MiB, at least {least}")
    return int(value) * MIB


def _divisions(value: str) -> tuple[int, ...]:
    """One number for all intervals, or a list "[256:1,512:2,>:8]" of intervals by their MiB; "above" is the rest."""
    if not value.startswith("["):
        return (_power_of_two(value),) * _INTERVALS
    inner = value[1:-1] if value.endswith("]") else "?"
    found = [0] * _INTERVALS
    last: int | None = None
    for item in filter(None, inner.split(",")):
        interval, _, number = item.partition(":")
        divisions = 0 if number == "0" else _power_of_two(number)
        if interval == ">":
            above = (last or 0) + 1
            found[above:] = [divisions] * (_INTERVALS - above)
            continue
        index = min(_power_of_two(interval).bit_length() - 1, _INTERVALS - 1)
        if last is None:
            found[:index] = [divisions] * index
        found[index] = divisions
        last = index
    return tuple(found)


def _power_of_two(value: str) -> int:
    number = int(value) if re.fullmatch(r"\d{1,9}", value) else 0
    if number <= 0 or number & (number - 1):
        raise _wrong(f"roundup_power2_divisions: {value}", "is no power of two")
    return number


def _wrong(what: str, why: str) -> InvalidWorkload:
    return InvalidWorkload(f"--alloc-conf {shown(what)} {why}")
