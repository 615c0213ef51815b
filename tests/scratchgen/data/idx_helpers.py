"""IDX files written down, and what is said of bad ones."""

import numpy as np
import pytest

from scratchgen.errors import UserError


def idx(array, kind=0x08):
    """Write down an IDX file as its description says, not as the module does."""
    return bytes([0, 0, kind, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def refusal(call, *args, **kwargs):
    """Return the message of the UserError that the call must raise, one line."""
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert message.isprintable(), "more than one line"
    return message
