import pytest

from memcalc.reporting.summary import accuracy, by_property, error, overall
from tests.reporting.rows import case, measured


def test_an_error_is_relative_to_the_measurement() -> None:
    assert error(100, 110) == pytest.approx(0.1)
    assert error(100, None) is None
    assert error(0, 0) == 0
    assert error(0, 5) is None


def test_accuracy_is_of_sizes_and_bias_has_the_sign() -> None:
    known = accuracy([(100, 110), (100, 90), (100, 97), (0, 5)])
    assert known is not None
    assert known.figures == 3
    assert (known.mean, known.median, known.worst) == pytest.approx((0.23 / 3, 0.1, 0.1))
    assert known.bias == pytest.approx(-0.01)
    assert known.correlation is None  # the measurements are all the same


def test_correlation_is_pearsons() -> None:
    known = accuracy([(1, 2), (2, 4), (3, 6)])
    assert known is not None
    assert known.correlation == pytest.approx(1.0)
    few = accuracy([(1, 2), (2, 4)])
    assert few is not None
    assert few.correlation is None


def test_groups_are_of_source_method_family_precision_and_phase() -> None:
    peak = measured()["peak_allocated"]
    groups = by_property([case("a", peak_allocated=peak), case("b", "other", peak_allocated=peak * 2)])
    found = {(group.property, group.value): group for group in groups if group.figure == "peak allocated"}
    assert found["source", "other"].accuracy.bias == pytest.approx(-0.5)
    assert found["method", "lora"].accuracy.worst == pytest.approx(0.5)
    assert found["family", "llama"].accuracy.figures == 2
    assert {"backward peak", "after load"} <= {group.value for group in groups if group.property == "phase"}


def test_a_category_that_is_on_neither_side_is_no_merit() -> None:
    assert not any(each.name == "at the peak: quantization state" for each in case().figures)
    (categories,) = [group for group in overall([case()]) if group.figure == "categories at the peak"]
    assert categories.accuracy.worst == 0


def test_what_a_device_cannot_tell_apart_is_compared_as_one_sum() -> None:
    at_peak = measured()["at_peak"]
    known = {**{name: at_peak[name] for name in list(at_peak)[:5]}, "unknown": sum(list(at_peak.values())[5:])}
    figures = case(at_peak=None, measured={"at_peak_known": known}).figures
    (rest,) = [each for each in figures if each.name == "at the peak: not told apart"]
    assert rest.measured == rest.estimate == known["unknown"]
