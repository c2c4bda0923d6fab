from pathlib import Path

from tests.profiling import killed, kills


def test_kills_at_random_points_lose_no_case_that_was_finished(tmp_path: Path) -> None:
    times, found = kills.fake(tmp_path, 25)  # .ci/full: 100, and 3 of real cases
    assert times > 15
    assert sorted(found) == sorted(case.name for case in killed.cases())
