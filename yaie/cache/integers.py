"""Sequences of integers from a caller, packed into bytes.

The radix tree keeps tokens and page ids as the bytes of int32 arrays: a slice, a dictionary key and
a comparison of two runs of tokens are then one call each, at the speed of memory, and nothing that
the caller holds is shared with the tree. NumPy reads the same bytes where arithmetic is needed.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import NDArray
from torch import Tensor

Integers = Sequence[int] | NDArray[np.integer[Any]] | Tensor
"""Token ids or page ids: a list, an array or a tensor with one axis."""

WORD = 4
"""Bytes of a packed integer."""
INT32 = np.dtype(np.int32)
LEAST, GREATEST = np.iinfo(INT32).min, np.iinfo(INT32).max


def as_int32(values: Any, where: str) -> NDArray[np.int32]:
    """``values`` as an array of int32, the caller's own where it is one; ``where`` names the
    function and the argument in errors.

    Errors: TypeError for what is no integer, ValueError for another rank or beyond int32.
    """
    if type(values) is ndarray and values.dtype is INT32 and values.ndim == 1:
        array: NDArray[np.int32] = values  # what an engine holds: no check too many
        return array
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    if isinstance(values, np.ndarray):
        return _from_array(values, where)
    return unpack(_packed_items(values, where))


def pack(values: Integers, where: str) -> bytes:
    """The bytes of ``as_int32``."""
    if type(values) is ndarray and values.dtype is INT32 and values.ndim == 1:
        return values.tobytes()
    return as_int32(values, where).tobytes()


def unpack(data: bytes | bytearray) -> NDArray[np.int32]:
    """The integers again. An array on ``bytes`` is read-only; on a ``bytearray`` it is not."""
    return np.frombuffer(data, INT32)


def count(value: object, where: str) -> int:
    """A number of pages, blocks or tokens: an integer that is not negative.

    Errors: TypeError, ValueError.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{where}: {value!r} is not an integer")
    if value < 0:
        raise ValueError(f"{where}: {value} is negative")
    return int(value)


def _from_array(values: NDArray[Any], where: str) -> NDArray[np.int32]:
    if values.ndim != 1:
        raise ValueError(f"{where}: rank is {values.ndim}, should be 1")
    if values.dtype != INT32:
        if values.dtype.kind not in "iu":
            raise TypeError(f"{where}: dtype is {values.dtype}, should be an integer")
        if values.size:
            for value in (values.min(), values.max()):
                if not LEAST <= value <= GREATEST:
                    raise ValueError(f"{where}: {value} does not fit int32")
    return values.astype(INT32, copy=False)


def _packed_items(values: Sequence[int], where: str) -> bytes:
    if isinstance(values, (str, bytes, bytearray, memoryview, array)):
        raise TypeError(f"{where}: {values!r} is not a list, an array or a tensor")
    try:
        return struct.pack(f"{len(values)}i", *values)  # three times as fast as an array
    except (TypeError, struct.error):
        return _checked_items(values, where)


def _checked_items(values: Any, where: str) -> bytes:
    """The same for what struct refuses, which names no item and takes no iterator."""
    try:
        return array("i", values).tobytes()
    except TypeError:
        for item in _items(values, where):
            if not hasattr(item, "__index__"):
                raise TypeError(f"{where}: {item!r} is not an integer") from None
        raise
    except OverflowError:
        wide = next(v for v in values if not LEAST <= v <= GREATEST)
        raise ValueError(f"{where}: {wide} does not fit int32") from None


def _items(values: Any, where: str) -> Sequence[Any]:
    try:
        return list(values)
    except TypeError:
        raise TypeError(f"{where}: {values!r} is not a list, an array or a tensor") from None
