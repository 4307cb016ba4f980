"""The size of a grid, read and written."""

from __future__ import annotations

import argparse

import pytest

from petsc_dcdm.grid.shape import Shape, parse_shape, shape_argument, shape_option, size_text


@pytest.mark.parametrize(
    "text, shape",
    [("8", (8, 8, 8)), ("5,6", (1, 6, 5)), ("6x5", (1, 5, 6)), ("5x6x7", (7, 6, 5)), ("5,6,1", (1, 6, 5))],
)
def test_sizes_are_read(text: str, shape: Shape) -> None:
    assert parse_shape(text, cube=True) == shape_option("size", text) == shape
    if len(text) > 1:
        assert parse_shape(text) == shape


@pytest.mark.parametrize("text", ["", "a", "4,0", "1,2,3,4", "-3", "4,x"])
def test_what_is_no_size_is_told_what_one_is(text: str) -> None:
    with pytest.raises(ValueError, match="^two or three positive integers"):
        parse_shape(text)
    with pytest.raises(ValueError, match="--grid '.*' is no grid: n for a cube, .* in positive integers[.]$"):
        shape_option("grid", text)
    with pytest.raises(argparse.ArgumentTypeError, match="is no grid"):
        shape_argument(text)


def test_one_number_is_a_cube_only_where_that_is_meant() -> None:
    with pytest.raises(ValueError, match="two or three"):
        parse_shape("8")
    with pytest.raises(argparse.ArgumentTypeError, match="at least 2"):
        shape_argument("1")


@pytest.mark.parametrize("shape, text", [((7, 6, 5), "5,6,7"), ((1, 6, 5), "5,6"), ((1, 1, 5), "5,1")])
def test_what_is_written_is_read_again(shape: Shape, text: str) -> None:
    assert size_text(shape, ",") == text and parse_shape(text) == parse_shape(size_text(shape, "x")) == shape
    assert size_text(shape) == text.replace(",", " x ")
