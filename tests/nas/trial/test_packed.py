"""State as JSON and tensors: what comes back is what went in, strides included."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from nas.trial.packed import pack, unpack
from nas.trial.state import Epoch

CPU = torch.device("cpu")


def there_and_back(value):
    tensors = {}
    packed = json.loads(json.dumps(pack(value, tensors)))
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    return unpack(packed, tensors, CPU)


TENSORS = {
    "channels last": torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last),
    "transposed": torch.randn(3, 4).t(),
    "one channel": torch.randn(4, 1, 3, 3).to(memory_format=torch.channels_last),
    "gaps": torch.randn(4, 6)[:, ::2],
    "bf16": torch.randn(3).bfloat16(),
    "half": torch.randn(3).half(),
    "number": torch.tensor(7, dtype=torch.int64),
    "none": torch.empty(0, 3),
    "bytes": torch.Generator().get_state(),
    "booleans": torch.tensor([True, False]),
    "not finite": torch.tensor([math.nan, math.inf, -0.0]),
    "parameter": torch.nn.Parameter(torch.randn(2)),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_come_back(kind):
    there = TENSORS[kind]
    back = there_and_back(there)
    assert (back.dtype, back.shape, back.stride()) == (there.dtype, there.shape, there.stride())
    if there.is_floating_point():
        whole = {2: torch.int16, 4: torch.int32}[there.element_size()]
        back, there = back.view(whole), there.detach().view(whole)
    assert back.equal(there)


def test_one_that_repeats_its_memory_comes_back_with_its_values():
    there = torch.randn(3, 1).expand(3, 4)
    assert there_and_back(there).equal(there)


def test_plain_values_come_back():
    value = {
        "a": [1, 2.5, None, True, "text", (1, (2.0,)), []],
        3: {"b": {4: 0.1 + 0.2}},
        "epoch": Epoch(2, 0.5, 0.25, 0.125, 1.0),
        "tensor": "name",
    }
    back = there_and_back(value)
    assert back == value
    assert type(back["a"][5]) is tuple
    assert list(map(type, back)) == [str, int, str, str]
    assert math.isnan(there_and_back(math.nan))
    array = np.random.RandomState(0).get_state(legacy=False)["state"]["key"]  # noqa: NPY002
    found = there_and_back(array)
    assert found.dtype == array.dtype
    assert (found == array).all()


@pytest.mark.parametrize("value", [object(), torch.eye(2).to_sparse(), {"a": [print]}])
def test_what_cannot_is_refused(value):
    with pytest.raises(TypeError, match="expected"):
        pack(value, {})
