from pathlib import Path

import pytest

from memcalc.errors import BadFile
from memcalc.footprint import Footprint
from memcalc.profiling.store import Store


def _line(peak: int) -> Footprint:
    return Footprint("profile", {"text": "x" * 100_000}, peak_allocated=peak)


def _peaks(store: Store) -> list[int | None]:
    return [each.peak_allocated for _, each in store.footprints() if isinstance(each, Footprint)]


@pytest.mark.parametrize("cut", [1, 2, 50_000, 100_000])
def test_a_torn_line_is_taken_away_and_those_before_it_are_kept(cut: int, store: Store) -> None:
    file = Path(store.path)
    store.append(_line(1))
    whole = file.stat().st_size
    store.append(_line(2))
    with file.open("rb+") as torn:
        torn.truncate(2 * whole - cut)
    only_its_end = cut == 1
    assert store.mend() == (0 if only_its_end else whole - cut)
    assert store.mend() == 0
    store.append(_line(3))
    assert _peaks(store) == ([1, 2, 3] if only_its_end else [1, 3])


def test_a_file_of_one_torn_line_is_empty_again(store: Store) -> None:
    file = Path(store.path)
    file.write_bytes(b'{"schema": "mem')
    assert store.mend() == 15
    assert file.read_bytes() == b""


def test_lines_that_are_no_footprints_are_told_apart(store: Store) -> None:
    Path(store.path).write_bytes(b'nonsense\n\n{"schema": "other/1"}\n[1]\n')
    store.append(_line(4))
    found = list(store.footprints())
    assert [number for number, _ in found] == [1, 3, 4, 5]
    assert [isinstance(each, BadFile) for _, each in found] == [True, True, True, False]
