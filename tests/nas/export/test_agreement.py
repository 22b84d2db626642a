"""What is not the model is found out: by its logits, its predictions, its shape."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas.export.agreement import BATCHES, agreement, answers, ask


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()


@pytest.fixture
def questions(model):
    images = torch.rand(100, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    return ask(model, images, model(images).argmax(1), 0.1, "random images")


def test_the_model_is_itself(model, questions):
    found = agreement(model, questions)
    assert (found.problem, found.difference, found.images) == ("", 0, 100)
    right = (model(questions.adversarial).argmax(1) == questions.labels).double().mean().item()
    assert found.accuracies == (right, right)
    assert right < 1  # or the attack shows nothing


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (lambda logits: logits + 2e-4, "a logit differs by 0.0002"),
        (lambda logits: logits * torch.nan, "a logit differs by nan"),
        (lambda logits: logits.flip(1), "a logit differs"),
    ],
)
def test_what_is_not_the_model(model, questions, wrong, problem):
    assert problem in agreement(lambda x: wrong(model(x)), questions).problem
    assert agreement(lambda x: model(x) + 5e-5, questions).problem == ""


def test_what_fails_under_attack_alone_is_not_the_model(model, questions):
    def lying(images):
        clean = any(torch.equal(images[0], image) for image in questions.images)
        return model(images) + (0 if clean else 1)

    assert "a logit differs by 1" in agreement(lying, questions).problem


def test_a_tie_may_go_either_way(model, questions):
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([1.0, 1.0, 0.0]))
    tied = ask(model, questions.images, None, 0.1, "random images")
    other = agreement(lambda x: model(x) + torch.tensor([0.0, 5e-5, 0.0]), tied)
    assert (other.problem, other.clean, other.near_ties) == ("", 0, 200)


def test_other_shapes_are_refused(model, questions):
    with pytest.raises(ValueError, match=r"expected logits \(100, 3\), got \(100, 2\)"):
        agreement(lambda x: model(x)[:, :2], questions)


@pytest.mark.parametrize("n", [3, 74, 75, 256])
def test_every_batch_size_is_asked(n):
    sizes, images = [], torch.rand(n, 1, 1, 1)

    def model(x):
        sizes.append(len(x))
        return x.flatten(1).repeat(1, 2)

    asked = ask(nn.Sequential(nn.Flatten(), nn.Linear(1, 2)).eval(), images, None, 0.1, "")
    answers(model, asked.images)
    assert set(BATCHES) <= set(sizes)
    assert sum(sizes) == len(asked.images) >= min(n, 74)
    assert len(asked.labels) == len(asked.images)
