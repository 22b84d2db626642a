"""What a person gets who prints a result: the numbers that matter, and never a tensor."""

from __future__ import annotations

import pytest
import torch

from metrics import (
    FGSM,
    PGD,
    accuracy_curve,
    cascade,
    minimal_fgsm,
    robust_accuracy,
    susceptibility,
)

ATTACKS = [FGSM(epsilon=0.05), PGD(epsilon=0.4, steps=3)]


@pytest.fixture(scope="module")
def asked():
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(48, 3)
    torch.nn.init.normal_(linear.weight, generator=generator)
    model = torch.nn.Sequential(torch.nn.Flatten(), linear).eval()
    images = torch.rand(40, 3, 4, 4, generator=generator)
    labels = model(images).argmax(1)
    labels[:4] = (labels[:4] + 1) % 3
    return model, images, labels


def test_a_cascade_says_what_each_attack_left(asked):
    found = cascade(*asked, ATTACKS)
    lines = str(found).splitlines()
    assert lines[0].startswith(f"robust accuracy {found.accuracy:.1%} [")
    assert "of 40)" in lines[0]
    first = int((found.broken_by == 0).sum())
    assert f"FGSM(epsilon=0.05, norm='linf'), which broke {first} of 36" in lines[1]
    assert f"which broke {int((found.broken_by == 1).sum())} of {36 - first}" in lines[2]
    assert first > 0
    assert lines[3] == f"{found.forwards} forwards, {found.backwards} backwards"
    assert len(lines) == 4


def test_a_gradient_that_is_none_is_said(asked):
    _, images, labels = asked

    class Flat(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.one_hot(x.flatten(1).argmax(1) % 3, 3).float() + 0 * x.sum()

    found = robust_accuracy(Flat().eval(), images, labels, ATTACKS[1])
    assert found.zero_gradients > 0
    assert f"! {found.zero_gradients} images have no gradient" in str(found)


@pytest.mark.parametrize("which", ["cascade", "attack", "curve", "smallest", "psi"])
def test_no_result_writes_a_tensor_out(asked, which):
    model, images, labels = asked
    found = {
        "cascade": lambda: cascade(*asked, ATTACKS),
        "attack": lambda: robust_accuracy(*asked, ATTACKS[1]),
        "curve": lambda: accuracy_curve(*asked, ATTACKS[0], [0, 0.1, 0.2]),
        "smallest": lambda: minimal_fgsm(*asked),
        "psi": lambda: susceptibility(model, images, generator=torch.Generator().manual_seed(0)),
    }[which]()
    for text in (str(found), repr(found)):
        assert "tensor(" not in text
        assert len(text) < 900
    if which == "curve":
        assert len(str(found).splitlines()) == 1 + 3 + 1
