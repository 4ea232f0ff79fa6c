"""Instances that are made in less time are like those of their constructors."""

from __future__ import annotations

import copy
import pickle
from uuid import UUID, uuid4

import pytest

from signalbus.core.fast_instances import uuid_from


def test_a_uuid_is_as_its_constructor_makes_it():
    """It is equal, immutable, and can be copied and pickled."""
    text = uuid4().hex
    made, usual = uuid_from(text), UUID(hex=text)

    assert (type(made), made, hash(made), str(made), made.is_safe) == (
        UUID,
        usual,
        hash(usual),
        str(usual),
        usual.is_safe,
    )
    assert pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == usual
    with pytest.raises(TypeError):
        setattr(made, "int", 1)  # noqa: B010 - the type checker knows that it is final


@pytest.mark.parametrize("text", ["", "0" * 30, "0" * 34, "x" * 32, "-" + "0" * 31, "0x" + "0" * 30, "0_" * 16])
def test_a_text_that_is_no_uuid_is_refused(text):
    """Only 32 digits are accepted."""
    with pytest.raises(ValueError, match=r"UUID|hex"):
        uuid_from(text)
