"""Where results are written: arrays on the device, whose memory serves again once nobody holds them."""

from typing import Any

import numpy as np

from kernels.cuda.array import DeviceArray


def empty(shape: tuple[int, ...], dtype: Any) -> DeviceArray:
    """An array with whatever is in it."""
    return DeviceArray.empty(shape, dtype)


def empty_like(x: DeviceArray) -> DeviceArray:
    """An array of the shape and type of x, with whatever is in it."""
    return DeviceArray.empty(x.shape, x.dtype)


def to_device(x: np.ndarray) -> DeviceArray:
    """A copy on the device."""
    return DeviceArray.from_host(x)


def to_host(x: DeviceArray) -> np.ndarray:
    """A copy on the host, after all that was launched before."""
    return np.asarray(x)
