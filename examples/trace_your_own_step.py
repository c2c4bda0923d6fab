"""What a training step of your own needs on a GPU, without one: your model, your loss, your optimizer.

python examples/trace_your_own_step.py
"""

import torch
from torch import nn

import memcalc

with torch.device("meta"):  # shapes alone: nothing is filled
    model = nn.Sequential(nn.Linear(4096, 16384), nn.GELU(), nn.Linear(16384, 4096))
optimizer = torch.optim.AdamW(model.parameters())


def step() -> None:
    """Written for "cuda", as it would run there."""
    x = torch.randn(64, 4096, device="cuda")
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


footprint = memcalc.trace_step(step, model=model, gpu="rtx4090")
print(f"peak: {footprint.peak_allocated / 2**30:.2f} GiB allocated, {footprint.peak_reserved / 2**30:.2f} GiB reserved")
print(f"fits a 24 GB card: {footprint.fits('rtx4090')}")
