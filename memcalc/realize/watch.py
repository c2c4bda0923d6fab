"""What loading and the loops tell whoever watches them: trace writes marks, profile reads counters."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch


class Watch(Protocol):
    """Called where a phase begins and where its level is read."""

    def history(self) -> None:
        """Steps begin that are not the measured one."""

    def measured(self) -> None:
        """The measured step begins."""

    def phase(self, name: str) -> None:
        """load, forward, backward or optimizer begins."""

    def phase_end(self) -> None:
        """The phase is over, and the loop has not dropped its output yet."""

    def stepping(self, parameter: torch.Tensor) -> AbstractContextManager[None]:
        """An optimizer steps a parameter inside of backward, and drops its gradient."""
        return nullcontext()

    def settle(self) -> None:
        """The optimizer is about to drop some of what it keeps."""

    def empty_cache(self) -> None:
        """The script empties the caching allocator's cache."""
