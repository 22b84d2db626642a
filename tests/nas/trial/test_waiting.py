"""Training waits for no GPU between looks at the loss, each of which is 16 steps late there."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from fake_cuda import fake_cuda
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from metrics.attacks import ATTACKS, PGD
from metrics.checks import values_known
from nas.data.arrays import Data, Split
from nas.errors import Diverged
from nas.trial.adversary import Adversary
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from nas.trial.waiting import CHECK_EVERY, LossWatch, values_fine
from search_spaces import Task

RECIPE = Recipe(
    epochs=1, batch_size=4, epsilon=0.1, steps=2, adversarial_share=1.0, selection_images=0,
    flip=True, crop_padding=1, gradient_clip=1.0,
)  # fmt: skip
WAITS = {
    "_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal", "masked_select", "unique",
}  # fmt: skip


class Waits(TorchDispatchMode):
    """Counts the operations that wait for a GPU; of a CPU's ``tolist`` it hears nothing."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put_") and any(
            v is not None and v.dtype == torch.bool for v in args[1]
        )
        if name in WAITS or masks:
            self.found[name] += 1
        return func(*args, **kwargs or {})


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )


def data(batches, device="cpu", kind=torch.uint8):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (4 * batches, 1, 6, 6), generator=generator, dtype=torch.uint8)
    pixels = pixels if kind == torch.uint8 else pixels.to(kind) / 255
    split = Split(pixels.to(device), (torch.arange(4 * batches) % 3).to(device))
    return Data(split, split, Task.plain((1, 6, 6), 3))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_more_steps_wait_no_more(norm, kind):
    """Steps 2 to 16 of an epoch, by the operations that torch is asked for."""
    found = []
    for batches in (1, CHECK_EVERY):
        generator = torch.Generator().manual_seed(0)
        attack = PGD(epsilon=0.1, steps=2, norm=norm)
        with Waits() as waits:
            drain(train(net(), data(batches, kind=kind), RECIPE, attack, generator))
        found.append(waits.found)
    assert found[0]["_local_scalar_dense"] > 0  # what counts does count
    assert found[0] == found[1]


@pytest.mark.parametrize("adversary", ["pgd", "fgsm", "step-ll", "noise-cube", "none"])
def test_on_a_gpu_only_every_sixteenth_step_waits(adversary):
    """Without clipping: the fake tells torch's C++, which groups gradients, that it is a CPU."""
    recipe = replace(RECIPE, adversary=adversary, gradient_clip=None)
    attack = recipe.attack()
    found = []
    for batches in (1, 2 * CHECK_EVERY + 1):
        with fake_cuda() as gpu:
            generator = torch.Generator("cuda").manual_seed(0)
            drain(train(net().to("cuda"), data(batches, "cuda"), recipe, attack, generator))
            found.append(gpu.syncs)
    assert found[1] - found[0] == {"event": 2}
    assert found[0]["item"] > 0


def test_a_call_of_an_attack_looks_at_no_values_that_are_known():
    """What is left is the comparison of the model with what it was."""
    found = []
    for known in (False, True):
        with fake_cuda() as gpu, values_known(known):
            x, y = data(1, "cuda").train.images(), data(1, "cuda").train.labels
            attack, model = PGD(epsilon=0.1, steps=2), net().to("cuda")
            attack(model, x, y, generator=torch.Generator("cuda"))
        found.append(gpu.syncs)
    assert found[0] - found[1] == {"tolist": 2}
    assert set(found[1]) == {"equal"}


def test_a_loss_that_is_not_finite_is_found_at_the_next_look_on_a_gpu():
    losses = torch.ones(2 * CHECK_EVERY + 1)
    losses[0] = torch.nan
    on_cpu = LossWatch(3)
    with pytest.raises(Diverged, match="the loss is nan in epoch 3, step 1$"):
        on_cpu.note(0, losses[0])
    with fake_cuda():
        watch = LossWatch(3)
        there = losses.to("cuda")
        for step in range(CHECK_EVERY):
            watch.note(step, there[step])
        with pytest.raises(Diverged, match="the loss is nan in epoch 3, step 1$"):
            watch.note(CHECK_EVERY, there[CHECK_EVERY])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_training_diverges_on_either_device(device):
    recipe = replace(RECIPE, learning_rate=1e30, adversary="none", gradient_clip=None)
    with fake_cuda():
        generator = torch.Generator(device).manual_seed(0)
        steps = train(net().to(device), data(20, device), recipe, None, generator)
        with pytest.raises(Diverged):
            drain(steps)


def spoilt(value, label):
    whole = data(2, kind=torch.float32)
    pixels, labels = whole.train.pixels.clone(), whole.train.labels.clone()
    pixels[3, 0, 2, 2], labels[5] = value, label
    return Data(Split(pixels, labels), whole.validation, whole.task)


@pytest.mark.parametrize("value", [1 + 1e-4, -1e-4, torch.nan, 1 + 1e-7])
def test_pixels_outside_are_still_looked_at(value):
    assert not values_fine(spoilt(value, 0))


def test_pixels_that_are_no_pixels_are_still_refused():
    with pytest.raises(ValueError, match=r"images: expected values in \[0, 1\], got .* 1.5"):
        drain(train(net(), spoilt(1.5, 0), RECIPE, ATTACKS["pgd"](), torch.Generator()))


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_of_no_class_are_still_refused(label):
    assert not values_fine(spoilt(0.5, label))
    with pytest.raises(ValueError, match="labels: expected classes 0 ... 2"):
        drain(train(net(), spoilt(0.5, label), RECIPE, ATTACKS["pgd"](), torch.Generator()))


@pytest.mark.parametrize("name", ["pgd", "fgsm", "step-ll", "noise-cube"])
def test_an_attack_on_the_copy_that_follows_a_model_waits_for_nothing(name):
    recipe = replace(RECIPE, adversary=name)
    model, images = net(), data(1).train.images()
    adversary = Adversary(recipe.attack(), model, images, recipe)
    adversary.begin_epoch(1)
    with Waits() as waits, values_known():
        labels = None if adversary.leaks_labels else data(1).train.labels
        adversary(model, images, labels, generator=torch.Generator())
    assert not waits.found
    assert adversary.precision != "as trained"


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "trades"},
        {"loss": "mart", "adversarial_share": 1.0},
        {"awp": 0.01},
        {"entropy_weight": 0.5, "label_smoothing": 0.1},
        {"optimizer": "sgd", "momentum": 0.0, "gradient_clip": None},
    ],
    ids=str,
)
def test_no_other_setting_waits_in_a_step(settings):
    """Adam counts its steps on the host, and averages look at as many batches after an epoch."""
    recipe = replace(RECIPE, **settings)
    found = []
    for batches in (2, CHECK_EVERY):
        generator = torch.Generator().manual_seed(0)
        with Waits() as waits:
            drain(train(net(), data(batches), recipe, recipe.attack(), generator))
        found.append(waits.found)
    assert found[0] == found[1]
