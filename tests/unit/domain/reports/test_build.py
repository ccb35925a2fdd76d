"""The range of order ids that a build scans, and the digest of a report."""

from decimal import Decimal

from daybook_domain.reports.build import EMPTY_RANGE, IdRange, dense_range, digest


def test_a_day_with_dense_ids_is_one_range() -> None:
    assert dense_range(orders=1000, first=1, last=2000, percentiles=()) == IdRange(1, 2000)


def test_a_single_order_is_a_range() -> None:
    assert dense_range(orders=1, first=7, last=7, percentiles=()) == IdRange(7, 7)


def test_a_few_outlier_ids_are_excluded_from_the_range() -> None:
    percentiles = (1001, 1010, 1050, 1250, 1750, 1950, 1990, 9_000_000)

    id_range = dense_range(orders=1000, first=1, last=9_000_000, percentiles=percentiles)

    assert id_range == IdRange(1010, 1990)


def test_a_day_with_scattered_ids_has_no_range() -> None:
    percentiles = tuple(range(1, 9_000_000, 1_200_000))

    assert dense_range(orders=1000, first=1, last=9_000_000, percentiles=percentiles) == EMPTY_RANGE


def test_a_small_day_with_scattered_ids_has_no_range() -> None:
    assert dense_range(orders=2, first=1, last=1_000_000, percentiles=()) == EMPTY_RANGE


def test_a_digest_is_sixteen_hex_digits_for_any_sum() -> None:
    assert digest(None) == "0" * 16
    assert digest(Decimal(-1)) == "f" * 16
    assert digest(Decimal(2**64 + 255)) == "00000000000000ff"
