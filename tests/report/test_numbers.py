import math

import pytest

from toolkit.report import numbers


@pytest.mark.parametrize("shown", [numbers.significant, numbers.error, numbers.share, numbers.decibels, numbers.count])
@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_has_no_value_reads_none(shown: numbers.Shown, value: float | None) -> None:
    assert shown(value) == "none"


def test_quantities_keep_three_digits_and_no_exponent() -> None:
    values = (0.001234, 0.0987, 1.0, 12.34, 123.4, 1234.5, 0)
    assert [numbers.significant(v) for v in values] == ["0.00123", "0.0987", "1.00", "12.3", "123", "1,234", "0"]


def test_errors_keep_two_digits_over_many_decades() -> None:
    values = (0, 2.13e-7, 0.00101, 0.0134, 0.1, 1.0, 12.3, 54321.0)
    assert [numbers.error(v) for v in values] == ["0", "2.1e-7", "0.0010", "0.013", "0.10", "1.0", "12", "5.4e4"]


def test_a_share_that_is_not_nothing_never_reads_as_nothing() -> None:
    assert [numbers.share(v) for v in (0, 1e-6, -1e-6, 0.0002, 0.125, 1)] == [
        "0%", "<0.01%", ">-0.01%", "0.02%", "12.50%", "100.00%",
    ]  # fmt: skip


def test_ticks_are_round() -> None:
    assert [numbers.tick(v) for v in (0, 0.5, 20, 1e-6, 5e-5, 2e6)] == ["0", "0.5", "20", "1e-6", "5e-5", "2e6"]
    assert numbers.share_tick(0.00015) == "0.015%"
