"""What a forward, run once over shapes alone, tells of its model and of the method's own parameters."""

from typing import Literal, NamedTuple

from memcalc.tape.layouts import Shape

Kind = Literal["linear", "conv1d", "matmul", "bias", "embedding", "norm", "buffer"]


class Declared(NamedTuple):
    """A parameter or buffer that the model's forward uses."""

    shape: Shape
    kind: Kind
    dtype: str = ""  # of a buffer that keeps its own


class Adapter(NamedTuple):
    """A parameter or buffer that the method adds beside a module, or its copy of one of the module's own."""

    part: str  # its name below the module that it adapts: "lora_A.default.weight"
    shape: Shape
    kind: Kind | None = None  # of what it is a copy of, or its own; "buffer": it never trains
    of: str = ""  # the full name of what it is a copy of; "": it is new
    dtype: str = ""  # of a buffer that keeps its own
    owner: str = ""  # of what several targets share: the one to which it belongs
    remade: bool = False  # shared, and made anew with each target
    late: bool = False  # made on the host, in fp32, and moved when all else is there
    on_device: bool = False  # made there, in fp32, and cast there; others come from the host as they are to be
    frozen: bool = False  # a parameter all the same: it is counted, and never trains

    @property
    def trains(self) -> bool:
        """Whether it does where the method's parameters train."""
        return self.kind != "buffer" and not self.frozen

    def module(self, name: str) -> str:
        """The module that the parameter of this full name adapts."""
        return name.removesuffix(f".{self.part}")


class Common(NamedTuple):
    """What targets share belongs to the first of them, and has room for the widest."""

    first: str = ""  # in order of registration
    d_out: int = 0  # of the widest output
    d_in: int = 0  # of the widest input
    targets: tuple[str, ...] = ()  # all of them, in that order


class Lookup(NamedTuple):
    """The model's word embeddings: where they stand, and what they are."""

    path: str  # of the module that has them
    name: str
    rows: int
    width: int
    scaled: bool  # by a factor that the module keeps as a buffer


class Sizes(NamedTuple):
    """A decoder's numbers, as far as a method may ask for them."""

    model_type: str
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    windows: tuple[int, ...] = ()  # keys that a query sees, layer by layer (0: all); empty: all everywhere
