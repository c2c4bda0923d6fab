"""The blocks that an operator allocates, seen in the allocator's own record."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch

from memcalc.allocator.settings import DEFAULT
from memcalc.profiling.facts import Unmeasurable
from memcalc.profiling.memory import Memory


class Inside(NamedTuple):
    """What happened between an operator's call and its return; requested bytes, in order of birth."""

    births: tuple[int, ...]  # all blocks
    outputs: tuple[int, ...]  # those that the result holds
    kept: tuple[int, ...]  # alive after it, and not in the result: a workspace
    before: tuple[int, ...]  # alive at the fullest moment and gone after it, born before the first output …
    after: tuple[int, ...]  # … and after it
    peak: int  # bytes at the fullest moment beyond those before the call, each block rounded as the allocator does


class Probe:
    """Looks inside operators on a device that records its allocations."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        memory.record(True)

    def inside(self, op: Callable[[], Any], *, warm: bool = True) -> tuple[Inside, Any]:
        """The blocks inside a call of `op`, and its result. A call before it makes what is made only once.

        Raises Unmeasurable where the record misses some.
        """
        if warm:
            op()
        self.memory.record(False)  # which forgets what was before: a snapshot copies all that is recorded
        self.memory.record(True)
        start = self.memory.levels().events
        result = op()
        stop = self.memory.levels().events
        if start is None or stop is None:
            raise Unmeasurable("this backend of torch does not count its allocations")
        _, entries = self.memory.snapshot()
        happened = [entry for entry in entries if entry["action"] in {"alloc", "free_requested"}]
        count = stop - start
        if count > len(happened):
            raise Unmeasurable("the allocator's record has gaps")
        held = {tensor.untyped_storage().data_ptr() for tensor in tensors_in(result)}
        return inside(happened[len(happened) - count :], held), result


def inside(happened: Iterable[Mapping[str, Any]], held: set[int]) -> Inside:
    """What an operator's entries say; `held` are the addresses of its result."""
    births: list[int] = []
    alive: dict[int, int] = {}  # birth number by address
    fullest: tuple[int, ...] = ()
    level = peak = 0
    for entry in happened:
        address = entry["addr"]
        if entry["action"] == "alloc":
            alive[address] = len(births)
            births.append(entry["size"])
            level += rounded(entry["size"])
            if level >= peak:  # the last of equally full moments: the output is there
                peak, fullest = level, tuple(alive.values())
        else:
            number = alive.pop(address, None)
            level -= rounded(entry["size"] if number is None else births[number])
    outputs = sorted(number for address, number in alive.items() if address in held)
    kept = sorted(number for address, number in alive.items() if address not in held)
    gone = [number for number in fullest if number not in alive.values()]
    first = outputs[0] if outputs else len(births)
    return Inside(
        births=tuple(births),
        outputs=tuple(births[number] for number in outputs),
        kept=tuple(births[number] for number in kept),
        before=tuple(births[number] for number in gone if number < first),
        after=tuple(births[number] for number in gone if number > first),
        peak=peak,
    )


def rounded(nbytes: int) -> int:
    """As the allocator rounds a request by default."""
    return DEFAULT.rounded([nbytes])[0]


def tensors_in(values: Any) -> list[torch.Tensor]:
    """The tensors of a result, however nested."""
    if isinstance(values, torch.Tensor):
        return [values]
    return [tensor for value in values for tensor in tensors_in(value)] if isinstance(values, tuple | list) else []
