"""Whether a run fits on a card, and how much room there is."""

from dataclasses import dataclass

from memcalc.units import gib


@dataclass(frozen=True, repr=False)
class Verdict:
    """True or false in an `if`; in words where it is shown. Bytes.

    >>> import memcalc
    >>> memcalc.estimate("llama-3.1-8b", method="qlora", batch=8).fits("rtx4090")
    does NOT fit on NVIDIA GeForce RTX 4090 (23.99 GiB): 4.42 GiB too much
    """

    gpu: str  # the card's name; for a bare size, that size
    needed: int  # what the device must hold: reserved memory, and the CUDA context where one was measured
    available: int  # what the driver reports for the card
    context_known: bool  # whether `needed` holds a CUDA context

    @property
    def margin(self) -> int:
        """Bytes to spare, negative where it does not fit."""
        return self.available - self.needed

    def __bool__(self) -> bool:
        return self.margin >= 0

    def __repr__(self) -> str:
        room = f"{gib(self.margin)} to spare" if self else f"{gib(-self.margin)} too much"
        return f"{'fits' if self else 'does NOT fit'} on {self.gpu}: {room}"
