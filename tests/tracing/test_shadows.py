import pytest
import torch

from memcalc.errors import NotModelled
from memcalc.timeline import Timeline
from memcalc.tracing import shadows
from memcalc.tracing.place import Place
from memcalc.tracing.tracer import Tracer


def _tracer() -> Tracer:
    tracer = Tracer(Timeline(), Place(), gpu=None)
    tracer.place.enter("forward")
    return tracer


def test_shapes_that_follow_from_known_values_are_right() -> None:
    with _tracer():
        mask = torch.ones(2, 4, dtype=torch.int64, device="meta")
        mask[-1, -1] = 0
        assert mask.nonzero().shape == (7, 2)
        assert mask.unique().shape == (2,)
        assert torch.empty(2, 4, 3, device="meta")[mask.bool()].shape == (7, 3)


def test_what_the_host_finds_stays_there() -> None:
    tracer = _tracer()
    with tracer:
        counts = torch.bincount(torch.tensor([0, 2, 2]))
    assert counts.tolist() == [1, 0, 2]
    assert not tracer.timeline.nbytes


def test_a_mask_in_an_index_is_searched_first_as_cuda_does() -> None:
    tracer = _tracer()
    with tracer:
        mask = torch.ones(4, dtype=torch.bool, device="meta")
        _ = torch.empty(4, 3, device="meta")[mask]
    assert ("nonzero", 4 * 8) in [
        (op, n) for (_, op), n in zip(tracer.timeline.labels, tracer.timeline.nbytes, strict=True)
    ]


def test_shapes_that_depend_on_data_are_refused_in_one_line() -> None:
    with _tracer(), pytest.raises(NotModelled, match="nonzero"):
        torch.empty(4, device="meta").gt(0).nonzero()


def test_a_question_about_data_is_refused_in_one_line() -> None:
    with _tracer(), pytest.raises(NotModelled, match="bool tensor"):
        bool(torch.empty(4, device="meta").gt(0).any())


def test_an_operator_without_a_kernel_is_named() -> None:
    with _tracer(), pytest.raises(NotModelled, match=r"aten::_to_copy, which reads the values"):
        torch.empty(4, device="meta").cpu()


def test_a_tensor_of_unknown_values_makes_known_ones_by_its_shape() -> None:
    with _tracer():
        assert shadows.get(torch.ones_like(torch.empty(3, device="meta").gt(0))) is not None


def test_large_tensors_are_not_followed() -> None:
    with _tracer():
        small = torch.ones(8, dtype=torch.int64, device="meta")
        assert shadows.get(small.expand(2**21, 8)) is None
        assert shadows.get(small) is not None
