"""Against a table of what users write, and against its own inverse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.budget import Budget, format_quantity, parse_budget, parse_budgets
from hwnas.errors import UsageError
from hwnas.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "metric", "limit", "size"),
    [
        ("5GBitOps", "bitops", 5e9, (32, 32)),
        ("5GBitOps@32x32", "bitops", 5e9, (32, 32)),
        ("5gbitops@180x320", "bitops", 5e9, (180, 320)),
        (" 5 GBitOps ", "bitops", 5e9, (32, 32)),
        ("30GFLOPs", "flops", 30e9, (256, 256)),
        ("30GMACs", "flops", 30e9, (256, 256)),
        ("7macs", "flops", 7, (256, 256)),
        ("2MMACs", "flops", 2e6, (256, 256)),
        ("300KParams", "params", 3e5, (32, 32)),
        ("1.5mparams", "params", 1.5e6, (32, 32)),
        ("12.Params", "params", 12, (32, 32)),
        (".5TBitOps@180x320", "bitops", 5e11, (180, 320)),
        ("1GBitOps@1x65536", "bitops", 1e9, (1, 65536)),
    ],
)
def test_what_users_write_means(text: str, metric: str, limit: float, size: tuple[int, int]) -> None:
    assert parse_budget(text) == Budget(metric, limit, size)


def test_a_size_in_the_text_wins_over_that_of_the_run_and_this_over_the_metrics_own() -> None:
    assert parse_budget("5GBitOps", (9, 7)).input_size == (9, 7)
    assert parse_budget("5GBitOps@5x6", (9, 7)).input_size == (5, 6)


WRITE_A_UNIT = r"is not a budget; write a number and a unit \(.*BitOps.*\), for instance 5GBitOps@32x32"
UNITS = r"no cost is counted in .*; the units are .*BitOps.*Params"
SIZE = "is not an input size; write height x width"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", WRITE_A_UNIT),
        ("5", WRITE_A_UNIT),
        ("2e9", WRITE_A_UNIT),
        ("2e9BitOps", WRITE_A_UNIT),
        ("GBitOps", WRITE_A_UNIT),
        ("-5GBitOps", WRITE_A_UNIT),
        ("nanGBitOps", WRITE_A_UNIT),
        ("5,5GBitOps", WRITE_A_UNIT),
        ("1.2.3GBitOps", WRITE_A_UNIT),
        ("5GBitOps@", WRITE_A_UNIT),
        ("5GB", UNITS),
        ("5PBitOps", UNITS),
        ("5GGBitOps", UNITS),
        ("5G", UNITS),
        ("5Gbytes", UNITS),
        ("0GBitOps", "is zero; nothing fits"),
        ("0.0Params", "is zero; nothing fits"),
        ("5GBitOps@32", SIZE),
        ("5GBitOps@0x3", SIZE),
        ("5GBitOps@3x0", SIZE),
        ("5GBitOps@-3x3", SIZE),
        ("5GBitOps@70000x3", SIZE),
        ("5GBitOps@32x32x3", SIZE),
        ("5GBitOps@32\u00d732", SIZE),
        ("5GBitOps@32x32 30GFLOPs", SIZE),
    ],
)
def test_what_is_no_budget_is_answered_with_what_to_write(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_budget(text)
    assert "\n" not in str(caught.value)


def test_one_cost_is_bounded_once() -> None:
    with pytest.raises(UsageError, match="two budgets bound bitops; keep that of one input size"):
        parse_budgets(["5GBitOps", "300KParams", "90GBitOps@180x320"])
    with pytest.raises(UsageError, match="two budgets bound flops; keep the tighter one"):
        parse_budgets(["5GMACs", "5GFLOPs"])
    assert [b.metric for b in parse_budgets(["5GBitOps", "300KParams"])] == ["bitops", "params"]
    assert parse_budgets([]) == ()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4_628_938_752, "4.629 GBitOps"),
        (1.5e12, "1.5 TBitOps"),
        (1e9, "1 GBitOps"),
        (85_212, "85.21 kBitOps"),
        (1000, "1 kBitOps"),
        (999, "999 BitOps"),
        (0, "0 BitOps"),
        (-2e6, "-2 MBitOps"),
    ],
)
def test_quantities_are_written_with_four_digits_and_a_prefix(value: float, text: str) -> None:
    assert format_quantity(value, "BitOps") == text


def test_a_budget_reads_as_its_limit_and_size() -> None:
    assert str(parse_budget("5GBitOps@180x320")) == "5 GBitOps at 180x320"


@given(
    number=st.decimals("0.01", "9999", places=2),
    prefix=st.sampled_from(["", "k", "K", "m", "M", "g", "G", "t", "T"]),
    unit=st.sampled_from(["BitOps", "FLOPs", "MACs", "Params"]).flatmap(
        lambda u: st.sampled_from([u, u.lower(), u.upper()])
    ),
    size=st.tuples(st.integers(1, 65536), st.integers(1, 65536)),
)
def test_number_prefix_unit_and_size_are_read_back(number: object, prefix: str, unit: str, size: tuple) -> None:
    budget = parse_budget(f"{number}{prefix}{unit}@{size[0]}x{size[1]}")
    power = {"": 0, "k": 3, "m": 6, "g": 9, "t": 12}[prefix.lower()]
    assert budget.limit == pytest.approx(float(str(number)) * 10**power, rel=1e-12)
    assert budget.input_size == size
    assert parse_size(f"{size[0]}x{size[1]}") == size


def test_a_cost_of_no_size_is_written_without_one() -> None:
    assert str(parse_budget("300KParams")) == "300 kParams"
    assert str(parse_budget("5GBitOps")) == "5 GBitOps at 32x32"


@given(limit=st.floats(1, 9e15), size=st.tuples(st.integers(1, 65536), st.integers(1, 65536)))
def test_what_is_written_is_read_as_the_same_to_four_digits(limit: float, size: tuple[int, int]) -> None:
    budget = Budget("bitops", limit, size)
    again = parse_budget(str(budget).replace(" at ", "@"))
    assert again.limit == pytest.approx(limit, rel=5.001e-4)
    assert (again.metric, again.input_size) == ("bitops", size)
