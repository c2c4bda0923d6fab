import pytest
import torch
from torch import nn

import memcalc
from memcalc.errors import InvalidWorkload
from memcalc.tracing.own_step import TracedStep


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(500, 64)
        self.layers = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
        self.head = nn.Linear(64, 500)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.layers(self.embedding(ids)))
        return logits


def _traced(*, warm_up: int = 1, accumulate: int = 1) -> TracedStep:
    with TracedStep(gpu="rtx4090", name="net", top=3) as traced:
        net = _Net().to("cuda")
        optimizer = torch.optim.AdamW(net.parameters())

        def step() -> None:
            for _ in range(accumulate):
                ids = torch.randint(0, 500, (4, 32), device="cuda")
                loss = nn.functional.cross_entropy(net(ids).flatten(0, 1), ids.flatten())
                loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            assert loss.item() == 1.0  # numbers that only data has are ones

        for _ in range(warm_up):
            step()
        if warm_up:
            traced.measure()
        step()
    return traced


def test_a_step_that_names_cuda_is_traced_without_one() -> None:
    footprint = _traced().footprint
    assert footprint.total_params == footprint.trainable_params == sum(p.numel() for p in _Net().parameters())
    assert [phase.name for phase in footprint.phases] == ["load", "forward", "backward", "optimizer"]
    assert footprint.phases[0].allocated_end == pytest.approx(footprint.total_params * 4, rel=0.05)
    assert footprint.workload["model"] == "net"
    assert footprint.workload["history"] == "same"
    assert len(footprint.largest) == 3
    assert footprint.checkpoint_bytes is None
    assert "checkpoint_bytes" in footprint.unavailable


def test_blocks_are_told_apart() -> None:
    traced = _traced()
    born = dict.fromkeys(traced.timeline.categories, 0)
    for category, nbytes in zip(traced.timeline.categories, traced.timeline.nbytes, strict=True):
        born[category] += nbytes
    parameters = sum(p.numel() for p in _Net().parameters()) * 4
    assert born["weights"] == parameters
    assert born["gradients"] == 2 * parameters
    assert born["optimizer_states"] == 2 * parameters
    assert born["logits_loss"] >= 2 * 4 * 32 * 500 * 4


def test_history_is_one_phase_and_the_measured_step_its_own() -> None:
    names = [mark.name for mark in _traced(warm_up=2).timeline.marks if mark.kind == "phase"]
    assert names[:2] == ["load", "history"]
    assert names[2:5] == ["forward", "backward", "optimizer"]


def test_without_history_every_step_counts() -> None:
    traced = _traced(warm_up=0)
    assert "history" not in [mark.name for mark in traced.timeline.marks]
    assert traced.footprint.workload["history"] == "none"


def test_micro_steps_go_back_and_forth() -> None:
    names = [mark.name for mark in _traced(warm_up=0, accumulate=2).timeline.marks if mark.kind == "phase"]
    assert names[1:] == ["forward", "backward", "forward", "backward", "optimizer"]


def test_a_model_made_before_is_loaded_in_order() -> None:
    model = nn.Linear(1024, 1024, device="meta")

    def step() -> None:
        model(torch.ones(8, 1024, device="cuda")).sum().backward()

    footprint = memcalc.trace_step(step, model=model, gpu="l40s")
    assert footprint.phases[0].allocated_end == 1024 * 1024 * 4 + 1024 * 4
    assert footprint.peak_phase == "backward"
    assert footprint.fits("l40s")


def test_autocast_and_the_scaler_work_as_on_a_gpu() -> None:
    with TracedStep() as traced:
        model = nn.Linear(64, 64).cuda()
        optimizer = torch.optim.SGD(model.parameters())
        scaler = torch.amp.GradScaler("cuda")
        with torch.autocast("cuda", dtype=torch.float16):
            y = model(torch.ones(8, 64, device="cuda"))
        assert y.dtype == torch.float16
        scaler.scale(y.float().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert traced.footprint.peak_allocated is not None


def test_paged_states_are_no_blocks_but_said() -> None:
    from bitsandbytes.optim import PagedAdamW

    with TracedStep() as traced:
        model = nn.Linear(400, 400, bias=False).cuda()
        optimizer = PagedAdamW(model.parameters())
        model(torch.ones(8, 400, device="cuda")).sum().backward()
        optimizer.step()
    assert "optimizer_states" not in traced.timeline.categories
    (warning,) = traced.footprint.warnings
    assert "1.2 MiB of optimizer states in managed memory" in warning


def test_a_block_without_a_step_is_refused_in_one_line() -> None:
    with pytest.raises(InvalidWorkload, match="no module was called"), TracedStep():
        torch.ones(8, device="cuda")


def test_an_exception_of_the_step_is_its_own_and_leaves_torch_as_it_was() -> None:
    before = torch.is_autocast_enabled

    def step() -> None:
        with TracedStep():
            nn.Linear(4, 4).cuda()(torch.ones(1, 4, device="cuda"))
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        step()
    assert torch.is_autocast_enabled is before
    assert torch.ones(2).sum().item() == 2
