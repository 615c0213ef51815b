"""Operations on images: shapes, arguments, errors. Their kernels are tested in ``tests/kernels/test_conv.py``."""

import re

import numpy as np
import pytest

from scratchgen import ops
from scratchgen.tensor import Tensor

IMAGES = Tensor(np.random.default_rng(0).standard_normal((2, 5, 6, 3)))
WEIGHT, TRANSPOSED = Tensor(np.ones((3, 2, 3, 4))), Tensor(np.ones((3, 2, 4, 3)))


def test_conv2d_takes_a_number_for_both_rows_and_columns():
    expected = ops.conv2d(IMAGES, WEIGHT, stride=(2, 2), padding=(1, 1))
    np.testing.assert_array_equal(ops.conv2d(IMAGES, WEIGHT, stride=2, padding=1).data, expected.data)
    assert expected.shape == (2, 3, 4, 4)


@pytest.mark.parametrize("edge", [0, 1, 2])
def test_conv_transpose2d_makes_images_that_conv2d_maps_back_to_the_same_shape(edge):
    images = ops.conv_transpose2d(IMAGES, TRANSPOSED, stride=3, padding=1, output_padding=edge)
    assert images.shape == (2, 4 * 3 - 2 + 3 + edge, 5 * 3 - 2 + 2 + edge, 4)
    assert ops.conv2d(images, TRANSPOSED, stride=3, padding=1).shape == IMAGES.shape


def test_conv_transpose2d_with_stride_two_draws_each_number_as_a_block():
    x, w = Tensor(np.arange(4.0).reshape(1, 2, 2, 1)), Tensor(np.ones((2, 2, 1, 1)))
    out = ops.conv_transpose2d(x, w, stride=2).data[0, :, :, 0]
    np.testing.assert_array_equal(out, [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])
    np.testing.assert_array_equal(ops.upsample2d(x, 2).data[0, :, :, 0], out)


def test_pools_lie_side_by_side_without_a_stride():
    x = Tensor(np.arange(20.0).reshape(1, 4, 5, 1))
    np.testing.assert_array_equal(ops.avg_pool2d(x, 2).data[0, :, :, 0], [[3, 5], [13, 15]])
    np.testing.assert_array_equal(ops.max_pool2d(x, 2).data[0, :, :, 0], [[6, 8], [16, 18]])
    np.testing.assert_array_equal(ops.max_pool2d(x, (4, 2), (1, 3)).data[0, :, :, 0], [[16, 19]])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ops.conv2d(IMAGES, Tensor(np.ones((6, 2, 3, 4)))), r"conv2d: a window of shape (6, 2) is larger than"),
        (lambda: ops.conv2d(IMAGES, TRANSPOSED), r"conv2d: shapes (2, 5, 6, 3) and (3, 2, 4, 3) do not fit"),
        (lambda: ops.conv2d(IMAGES[0], WEIGHT), r"conv2d: shapes (5, 6, 3) and (3, 2, 3, 4) do not fit"),
        (
            lambda: ops.conv2d(IMAGES, WEIGHT, stride=0),
            "conv2d: stride must be a whole number or two, 1 or more, not 0",
        ),
        (lambda: ops.conv2d(IMAGES, WEIGHT, padding=(1, -1)), "padding must be a whole number or two, 0 or more, not"),
        (lambda: ops.conv2d(IMAGES, WEIGHT, padding=(1, 1, 1)), "conv2d: padding must be a whole number or two"),
        (lambda: ops.conv2d(IMAGES, WEIGHT, activation="relu"), "conv2d: an activation needs a bias"),
        (lambda: ops.conv2d(IMAGES, WEIGHT, np.ones(4), "swish"), "conv2d: activation 'swish' is not one of identity"),
        (lambda: ops.conv_transpose2d(IMAGES, TRANSPOSED, padding=9), "conv_transpose2d: images of shape (5, 6), with"),
        (
            lambda: ops.conv_transpose2d(IMAGES, TRANSPOSED, stride=2, output_padding=2),
            "conv_transpose2d: output_padding 2 must be less than the stride 2",
        ),
        (
            lambda: ops.avg_pool2d(IMAGES, 6),
            "avg_pool2d: a window of shape (6, 6) is larger than images of shape (5, 6)",
        ),
        (lambda: ops.max_pool2d(IMAGES, 0), "max_pool2d: size must be a whole number or two, 1 or more, not 0"),
        (lambda: ops.upsample2d(IMAGES, 0), "upsample2d: factor must be a whole number or two, 1 or more, not 0"),
        (lambda: ops.pad2d(IMAGES, -1), "pad2d: padding must be a whole number or two, 0 or more, not -1"),
    ],
)
def test_mistakes_are_named(call, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        call()
