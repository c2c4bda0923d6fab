import torch

from memcalc.timeline import Timeline
from memcalc.tracing.place import Place
from memcalc.tracing.tracer import Tracer


def _births(timeline: Timeline) -> list[tuple[str, int]]:
    return [(op, nbytes) for (_, op), nbytes in zip(timeline.labels, timeline.nbytes, strict=True)]


def _tracer() -> Tracer:
    return Tracer(Timeline(), Place(), gpu=None)


def test_views_share_a_block_and_the_last_one_frees_it() -> None:
    tracer = _tracer()
    with tracer:
        x = torch.empty(8, device="meta")
        view = x[2:]
        del x
        assert tracer.timeline.events == [0]
        del view
    assert tracer.timeline.events == [0, ~0]


def test_host_tensors_are_no_rows() -> None:
    tracer = _tracer()
    with tracer:
        torch.zeros(4) + torch.tensor(1.0)
    assert tracer.timeline.events == []


def test_where_the_host_is_the_device_a_step_moves_nothing_that_it_finds_there() -> None:
    tracer = _tracer()
    with tracer:
        found = torch.zeros(4)
        tracer.place.stage = "forward"
        made = torch.zeros(8)
        moved = [found.to("meta"), made.to("meta"), made.to("meta")]
        assert _births(tracer.timeline) == [("_to_copy", 32)]
        del made, moved[2]
        assert tracer.timeline.events == [0]
        moved.pop()
    assert tracer.timeline.events == [0, ~0]


def test_a_gradient_that_only_the_engine_holds_is_added_into() -> None:
    leaf = torch.ones(4, device="meta", requires_grad=True)
    tracer = _tracer()
    with tracer:
        doubled = leaf * 2
        (doubled.sin().sum() + doubled.cos().sum()).backward()
    assert "add (backward)" not in [op for op, _ in _births(tracer.timeline)]


def test_a_gradient_that_others_hold_is_not() -> None:
    leaf = torch.ones(4, device="meta", requires_grad=True)
    tracer = _tracer()
    with tracer:
        doubled = leaf * 2
        grad = torch.ones(4, device="meta")
        torch.autograd.backward([doubled, doubled.sin()], [grad, grad])
    assert "add (backward)" in [op for op, _ in _births(tracer.timeline)]


def test_the_insides_of_composites_are_seen_in_inference_mode() -> None:
    tracer = _tracer()
    with tracer, torch.inference_mode():
        torch.nn.functional.linear(torch.ones(2, 3, 4, device="meta"), torch.ones(5, 4, device="meta"))
    assert ("mm", 2 * 3 * 5 * 4) in _births(tracer.timeline)


def test_questions_about_masks_are_answered_from_their_values() -> None:
    with _tracer():
        mask = torch.ones(2, 4, dtype=torch.int64, device="meta")
        assert mask.bool().all()
        mask[-1, -1] = 0
        assert not mask.bool().all()
        assert mask.sum().item() == 7
