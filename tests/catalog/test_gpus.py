from pathlib import Path

import pytest

from memcalc.catalog import find
from memcalc.catalog.find import find_gpu, gpus
from memcalc.catalog.reading import read_object
from memcalc.kernels import Gpu
from memcalc.units import MIB

CARDS = list(gpus())
ARCHITECTURES = {(6, 0), (6, 1), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0)}


def test_there_are_at_least_sixty_cards() -> None:
    assert len(CARDS) >= 60


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.key)
def test_a_cards_figures_are_possible(card: Gpu) -> None:
    assert card.capability in ARCHITECTURES
    assert 10 <= card.sm_count <= 192
    assert 6 * 1024 * MIB <= card.memory_bytes <= 300 * 1024 * MIB
    assert card.memory_source in {"seen", "derived"}
    assert (card.context_bytes is None) == (card.context_source == "")


@pytest.mark.parametrize(
    ("key", "mib"),
    [
        ("h200", 143_771),
        ("h100", 81_559),
        ("a100-80gb", 81_920),
        ("a100-40gb", 40_960),
        ("l40s", 46_068),
        ("a40", 46_068),
        ("rtx5880-ada", 46_068),
        ("l4", 23_034),
        ("a10", 23_028),
        ("rtx4090", 24_564),
        ("t4", 15_360),
        ("rtx-pro-6000", 97_887),
        ("rtx2080ti", 11_264),
        ("rtx-a6000", 49_140),
    ],
)
def test_memory_is_what_nvidia_smi_prints_not_what_the_box_says(key: str, mib: int) -> None:
    assert find_gpu(key).memory_bytes == mib * MIB
    assert find_gpu(key).memory_source == "seen"


def test_a_context_is_given_only_where_one_was_measured() -> None:
    measured = {card.key: card.context_bytes for card in CARDS if card.context_bytes is not None}
    assert measured == {"t4": 147_718_144, "rtx-a6000": 744_685_568}


def test_no_key_stands_twice() -> None:
    assert len(read_object(str(Path(find.__file__).with_name("gpus.json")))) == len(CARDS)
