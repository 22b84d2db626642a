"""An exponential moving average of the weights: what a recipe's ``weight_average`` keeps.

After every optimizer step t = 0, 1, ... the average moves to d_t average + (1 - d_t) weights, with
d_t = min(d, (1 + t) / (10 + t)): so it leaves the random weights it begins with, however short the
training, and until d is reached it spans the last tenth of the steps. Averages lie in wider optima
than the weights they are of (Izmailov et al. 2018, arXiv 1803.05407), and those of adversarial
training are more robust (Gowal et al. 2020, arXiv 2010.03593, with d = 0.995; Rebuffi et al. 2021,
arXiv 2103.01946, with d = 0.999).

Statistics that batch norms gathered belong to the weights that they were gathered with. The
average's are computed anew (Izmailov et al. 2018), as means over a few batches, of images such as
the recipe trains on: augmented, and its share of them made adversarial against the average. SWA
takes clean ones; of two nets trained on adversarial images alone (4 x 16, Fashion-MNIST) one lost 7
points of PGD accuracy by that, the other none. No random draw of the training depends on any of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from metrics.attacks import Attack
from metrics.deadline import check
from nas.data.arrays import Split
from nas.trial.augmentation import augment
from nas.trial.recipe import Recipe
from nas.trial.recipe_checks import PAIRED

STATISTICS_IMAGES = 512  # at most, that statistics of batch norms are computed from


class WeightAverage:
    """The average of a model's weights; :meth:`update` follows every optimizer step.

    Parameters are averaged, in float32 at least. Buffers are the model's own, as integers can only
    be, but for batch norms' statistics: :meth:`renew`.

    Args:
        model: as it is before the first step.
        decay: d, in (0, 1).

    Attributes:
        steps: updates so far.
        parameters: the average, in the order of ``model.parameters()``.
        buffers: that go with it, since the last :meth:`renew`.
        best_epoch, best_weights: of the best averaged model so far, 0 and empty before the first.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.steps = 0
        self.parameters = [_at_least_float32(p) for p in model.parameters()]
        self.buffers = _copies(model.buffers())
        self.best_epoch = 0
        self.best_weights: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the weights of now."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        now = [p.to(a.dtype) for p, a in zip(self.model.parameters(), self.parameters, strict=True)]
        if now:
            torch._foreach_lerp_(self.parameters, now, 1 - decay)
        self.steps += 1

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """Let the model have the averaged weights, then its own again, to the last bit."""
        places = [*self.model.parameters(), *self.model.buffers()]
        own = _copies(places)
        try:
            _copy_into(places, [*self.parameters, *self.buffers])
            yield
        finally:
            _copy_into(places, own)

    def renew(self, make: Callable[[], Iterable[Tensor]]) -> None:
        """Take the model's buffers, and batch norms' statistics from images.

        Args:
            make: batches of images ``(N, C, H, W)``, asked for while the model has the average and
                its own statistics, so that they can be attacked; not for a model without norms.
        """
        self.buffers = _copies(self.model.buffers())
        if norms := _norms(self.model):
            with self.in_model():
                _recompute(self.model, norms, list(make()))
                self.buffers = _copies(self.model.buffers())

    def weights(self) -> dict[str, Tensor]:
        """Return a state dict of the model with the averaged weights."""
        with self.in_model():
            return {name: w.detach().clone() for name, w in self.model.state_dict().items()}

    def state_dict(self) -> dict[str, Tensor | int]:
        """Return all that changes, flat; :meth:`load_state_dict` takes it."""
        lists = {"parameters": self.parameters, "buffers": self.buffers}
        state: dict[str, Tensor | int] = {"steps": self.steps, "best_epoch": self.best_epoch}
        for name, tensors in lists.items():
            state |= {f"{name}.{i}": tensor for i, tensor in enumerate(tensors)}
        return state | {f"best_weights.{name}": w for name, w in self.best_weights.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor | int]) -> None:
        """Take what :meth:`state_dict` of an average of the same model returned.

        Raises:
            KeyError: it is of another model.
        """
        self.steps, self.best_epoch = int(state["steps"]), int(state["best_epoch"])
        for name, tensors in (("parameters", self.parameters), ("buffers", self.buffers)):
            _copy_into(
                tensors, [torch.as_tensor(state[f"{name}.{i}"]) for i in range(len(tensors))]
            )
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        self.best_weights = {
            name.removeprefix("best_weights."): torch.as_tensor(w).to(device, copy=True)
            for name, w in state.items()
            if name.startswith("best_weights.")
        }


def statistics_batches(
    model: nn.Module,
    train: Split,
    recipe: Recipe,
    attack: Attack | None,
    seed: int,
    *,
    micro_batch: int | None = None,
) -> Iterator[Tensor]:
    """Yield the images that statistics are computed from: equal batches of the recipe's size.

    They are ``STATISTICS_IMAGES`` at most, drawn without replacement, augmented and attacked as in
    training. Of ``trades`` and ``mart``, which look at an image with its attack and without, both
    are there.

    Args:
        model: that is attacked.
        train: the training images.
        recipe: its batch size, augmentation, loss and adversarial share.
        attack: of the recipe; None leaves images clean.
        seed: decides the images, their augmentation and the attack's random starts.
        micro_batch: images at a time, where fewer than the recipe's.
    """
    device = train.labels.device
    generator = torch.Generator(device=device).manual_seed(seed)
    chosen = torch.randperm(len(train), generator=generator, device=device)[:STATISTICS_IMAGES]
    size = min(recipe.batch_size, micro_batch or recipe.batch_size)
    for indices in chosen.tensor_split(math.ceil(len(chosen) / size)):
        x, y = augment(train.images(indices), recipe, generator), train.labels[indices]
        attacked = 0 if attack is None else round(recipe.attacked_share * len(x))
        if attack is None or not attacked:
            yield x
            continue
        labels = None if attack.leaks_labels else y[:attacked]
        adversarial = attack(
            model, x[:attacked], labels, generator=generator, batch_size=micro_batch
        )
        if recipe.loss in PAIRED:
            yield x
        yield torch.cat([adversarial, x[attacked:]])


@torch.no_grad()
def _recompute(model: nn.Module, norms: list[_BatchNorm], batches: Iterable[Tensor]) -> None:
    """Set batch norms' statistics to the means of those of the batches.

    Nothing but batch norms is in train mode: dropout would draw from generators that are not ours.
    """
    modes = [(module, module.training) for module in model.modules()]
    found = [(norm, norm.momentum, _copied(norm.num_batches_tracked)) for norm in norms]
    model.eval()
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # every batch counts the same
            norm.train()
        for x in batches:
            check()  # the time limit
            model(x)
    finally:
        for norm, momentum, count in found:
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(count)
        for module, training in modes:
            module.training = training


def _norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the layers that keep statistics."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [norm for norm in norms if norm.running_mean is not None]


def _at_least_float32(parameter: Tensor) -> Tensor:
    kind = torch.promote_types(parameter.dtype, torch.float32)
    return parameter.detach().to(kind, copy=True)


def _copied(tensor: Tensor | None) -> Tensor:
    return torch.zeros(()) if tensor is None else tensor.clone()


def _copies(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


@torch.no_grad()
def _copy_into(places: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    for place, value in zip(places, values, strict=True):
        place.copy_(value)
