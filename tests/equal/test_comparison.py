"""Only a row whose reference could hardly decide may differ, only from there on, and only few rows may."""

from __future__ import annotations

import pytest

from tests.equal.comparison import CLOSE, Tally

pytest_plugins = ["pytester"]
RIGHT, CERTAIN = [4, 5, 6, 7], [1.0, 1.0, 1.0, 1.0]


def test_equal_rows_need_no_excuse():
    tally = Tally()
    assert tally.stepwise("row", RIGHT, CERTAIN, [4, 5, 6, 7]) is None
    assert (tally.rows, tally.excuses, tally.faults) == (1, [], [])
    tally.settle()


def test_a_row_that_differs_at_a_wide_gap_fails():
    tally = Tally()
    assert tally.stepwise("row", RIGHT, [CLOSE / 2, 1.0, CLOSE * 1.01, 0.0], [4, 5, 9, 7]) == 2
    assert not tally.excuses
    with pytest.raises(AssertionError, match=r"row: step 2, \[6, 7\] / \[9, 7\], gap 0.0001"):
        tally.settle()


def test_a_row_is_excused_from_a_close_step_on_and_printed(capsys):
    tally = Tally(rows=99)
    assert tally.stepwise("row", RIGHT, [1.0, CLOSE / 2, 1.0, 1.0], [4, 8, 9, 9]) == 1
    assert capsys.readouterr().out == "excused: row: step 1, [5, 6, 7] / [8, 9, 9], gap 5e-05\n"
    tally.settle()


@pytest.mark.parametrize("ours", [RIGHT[:3], [*RIGHT, 8]])
def test_a_row_that_ends_elsewhere_has_no_excuse(ours):
    tally = Tally(rows=1000)
    tally.stepwise("row", RIGHT, [0.0] * 4, ours)
    with pytest.raises(AssertionError, match="gap inf"):
        tally.settle()


def test_one_row_in_a_hundred_may_have_an_excuse():
    for rows, fails in ((98, True), (99, False)):
        tally = Tally(rows=rows)
        tally.stepwise("row", RIGHT, [0.0] * 4, [9, 9, 9, 9])
        if fails:
            with pytest.raises(AssertionError, match="1 of 99 rows needed an excuse"):
                tally.settle()
        else:
            tally.settle()


def test_nothing_compared_is_a_fault():
    with pytest.raises(AssertionError, match="nothing was compared"):
        Tally().settle()


def test_a_search_is_excused_by_its_least_gap_alone():
    tally = Tally(rows=1000)
    assert tally.searched("beams", [RIGHT, RIGHT], [1.0, 1.0], [RIGHT, RIGHT])
    assert not tally.searched("beams", [RIGHT, RIGHT], [1.0, CLOSE / 2], [RIGHT, [4, 5, 6, 8]])
    assert len(tally.excuses) == 1
    assert not tally.searched("beams", [RIGHT], [float("inf")], [[1]])
    with pytest.raises(AssertionError, match="row 0 step 0"):
        tally.settle()


def test_a_part_fails_by_itself_and_is_counted_in_the_whole():
    whole = Tally()
    with pytest.raises(AssertionError, match="row: step 0"), whole.case() as case:
        case.stepwise("row", RIGHT, CERTAIN, [9])
    with whole.case() as case:
        case.stepwise("row", RIGHT, [0.0] * 4, [4, 9])
    assert (whole.rows, len(whole.excuses), whole.faults) == (2, 1, [])
    with pytest.raises(AssertionError, match="1 of 2 rows needed an excuse"):
        whole.settle()


def test_a_table_with_too_many_excuses_fails_though_its_tests_passed(pytester):
    """The tally of a module is settled when its last test is done."""
    pytester.makeconftest("from tests.equal.frameworks.conftest import tally")
    pytester.makepyfile(
        """
        def test_a_row(tally):
            with tally.case() as case:
                case.stepwise("row", [1, 2], [1.0, 0.0], [1, 3])
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*1 of 1 rows needed an excuse*"])
