"""PYTORCH_CUDA_ALLOC_CONF's syntax, as PyTorch's own parser reads it."""

import pytest

from memcalc.allocator import AllocatorSettings, parse_alloc_conf
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.units import MIB

GOOD = [
    "",
    "expandable_segments:True",
    "expandable_segments:False",
    "max_split_size_mb:128",
    "max_split_size_mb:20",
    " max_split_size_mb : 128 , expandable_segments:True ",
    "max_split_size_mb:128,",
    "max_non_split_rounding_mb:40",
    "large_segment_size_mb:40",
    "max_split_size_mb:40,large_segment_size_mb:40",
    "garbage_collection_threshold:0.8",
    "roundup_power2_divisions:1",
    "roundup_power2_divisions:8",
    "roundup_power2_divisions:[256:1,512:2,1024:4,>:8]",
    "roundup_power2_divisions:[64:0,>:2],max_split_size_mb:64",
    "roundup_power2_divisions:[]",
    "pinned_use_background_threads:True",
    "backend:native",
]
BAD = [
    "max_split_size_mb",
    "max_split_size_mb:",
    "max_split_size_mb:19",
    "max_split_size_mb:many",
    "max_split_size_mb=128",
    "max_split_size_mb:32,large_segment_size_mb:40",
    "max_non_split_rounding_mb:19",
    "large_segment_size_mb:10",
    "expandable_segments:true",
    "expandable_segments:True max_split_size_mb:128",
    "garbage_collection_threshold:0",
    "garbage_collection_threshold:1.8",
    "roundup_power2_divisions:0",
    "roundup_power2_divisions:3",
    "roundup_power2_divisions:[3:2]",
    "roundup_power2_divisions:[256:3]",
    "roundup_power2_divisions:[256:2",
]


@pytest.mark.parametrize("conf", GOOD)
def test_what_pytorch_accepts_is_accepted(conf: str) -> None:
    assert isinstance(parse_alloc_conf(conf), AllocatorSettings)


@pytest.mark.parametrize("conf", [*BAD, "no_such_option:1", "backend:jemalloc", "💾", "roundup_power2_divisions:[:]"])
def test_nonsense_is_refused_in_one_line(conf: str) -> None:
    with pytest.raises(InvalidWorkload) as refused:
        parse_alloc_conf(conf)
    assert str(refused.value).startswith("--alloc-conf ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("conf", GOOD + BAD)
def test_pytorchs_own_parser_agrees(conf: str) -> None:
    torch = pytest.importorskip("torch")
    apply = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
    if apply is None:
        pytest.skip("this PyTorch hides its parser")
    try:
        if conf in GOOD:
            apply(conf)
        else:
            with pytest.raises((ValueError, RuntimeError)):
                apply(conf)
    finally:
        apply("")


def test_cudas_own_allocator_is_left_to_profile() -> None:
    with pytest.raises(NotModelled, match="profile"):
        parse_alloc_conf("backend:cudaMallocAsync")


def test_options_arrive_in_bytes() -> None:
    settings = parse_alloc_conf("max_split_size_mb:128,max_non_split_rounding_mb:32,garbage_collection_threshold:0.8")
    assert (settings.max_split_size, settings.max_non_split_rounding) == (128 * MIB, 32 * MIB)
    assert settings.garbage_collection_threshold == pytest.approx(0.8)
    assert parse_alloc_conf("") == AllocatorSettings()


def test_a_larger_segment_size_allows_more_rounding() -> None:
    settings = parse_alloc_conf("max_split_size_mb:64,large_segment_size_mb:40")
    assert (settings.large_segment_size, settings.max_non_split_rounding) == (40 * MIB, 40 * MIB)


def test_the_last_of_two_values_counts() -> None:
    assert parse_alloc_conf("expandable_segments:True,expandable_segments:False") == AllocatorSettings()


@pytest.mark.parametrize("name", ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"])
def test_the_variables_name_may_stand_before_its_value(name: str) -> None:
    assert parse_alloc_conf(f"{name}=expandable_segments:True").expandable_segments


def test_divisions_below_the_first_interval_are_those_of_the_first() -> None:
    settings = parse_alloc_conf("roundup_power2_divisions:[4:2,16:8,>:4]")
    assert settings.roundup_power2_divisions == (2, 2, 2, 0, 8, *(4,) * 11)


def test_one_number_of_divisions_holds_everywhere() -> None:
    assert parse_alloc_conf("roundup_power2_divisions:4").roundup_power2_divisions == (4,) * 16
