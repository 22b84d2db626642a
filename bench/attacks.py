"""PGD-20 against torchattacks, foolbox and ART; curves and smallest epsilons against repetition.

    PSINAS_DATA=DIR python bench/attacks.py [--rounds 3] [--images 2000] [--threads 1,2]
                                            [--leave-out foolbox,art]
    PSINAS_DATA=DIR python bench/attacks.py --scales [--images 500]

With ``--scales``: accuracy under FGSM, PGD and Auto-PGD of the same nets with larger logits, and
under torchattacks' PGD; no times. Else:

Two nets are trained here on Fashion-MNIST (on digits, with fewer images, where there is no
PSINAS_DATA): a standard one and an adversarially trained one. All libraries attack the same images,
one after the other in each round (foolbox and ART in the first only), in this process. They get the
model in torch's default layout, and the batch size of 100 or 250 that suits torchattacks better; a
row of its own gives torchattacks our layout too. Masks are compared with torchattacks' visited
iterates, recorded by a hook, and with its last.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
import torchattacks
from torch import Tensor, nn

from metrics.answers import input_gradient, logits_of, misclassified
from metrics.attacks import APGD, FGSM, PGD, Attack
from metrics.engine.folding import channels_last, fast_copy
from metrics.left_as_found import evaluating
from metrics.robustness.accuracy import correct, robust_accuracy
from metrics.robustness.curves import accuracy_curve
from metrics.robustness.smallest import minimal_fgsm
from nas.data.arrays import Data, prepare
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import DepthChannels

STEPS = 20
TOLERANCE = 0.1 / 255
LIMIT = 100 / 255


def data_and_epsilon(images: int) -> tuple[Data, float]:
    if "PSINAS_DATA" in os.environ:
        config = DataConfig(name="fashion-mnist", limit=Limit(train=8000, validation=images))
        return prepare(load_images(config), config), 8 / 255
    config = DataConfig(name="digits", limit=Limit(train=700, validation=500))
    return prepare(load_images(config), config), 0.1


def trained(data: Data, adversary: str, epsilon: float) -> nn.Module:
    space = DepthChannels(depth=(3,), channels=(16,), stem="small")
    architecture = space.architecture({"depth": 3, "channels": 16})
    model = space.build(architecture, data.task, seed=0)
    recipe = Recipe(epochs=3, adversary=adversary, adversarial_share=1.0, epsilon=epsilon, steps=5)
    drain(train(model, data, recipe, recipe.attack(), torch.Generator().manual_seed(0)))
    return model.eval()


def with_layout(model: nn.Module, layout: Callable[[Tensor], Tensor]) -> nn.Module:
    model = copy.deepcopy(model)
    for weight in model.parameters():
        if weight.ndim == 4:
            weight.data = layout(weight.data)
    return model


def contiguous(v: Tensor) -> Tensor:
    return torch.empty(v.shape).copy_(v)  # Tensor.contiguous() keeps odd strides of length 1


def in_batches(attack: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, n: int) -> Tensor:
    return torch.cat([attack(a, b).detach() for a, b in zip(x.split(n), y.split(n), strict=True)])


def torchattacks_pgd(model: nn.Module, epsilon: float) -> Callable[[Tensor, Tensor], Tensor]:
    return torchattacks.PGD(model, epsilon, epsilon / 4, STEPS, random_start=False)


def foolbox_pgd(model: nn.Module, epsilon: float) -> Callable[[Tensor, Tensor], Tensor]:
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(abs_stepsize=epsilon / 4, steps=STEPS, random_start=False)
    return lambda x, y: attack(wrapped, x, y, epsilons=epsilon)[1]


def art_pgd(model: nn.Module, epsilon: float) -> Callable[[Tensor, Tensor], Tensor]:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    loss = nn.CrossEntropyLoss(reduction="sum")
    shape = (1, 28, 28) if "PSINAS_DATA" in os.environ else (1, 8, 8)
    wrapped = PyTorchClassifier(model, loss, shape, 10, clip_values=(0.0, 1.0), device_type="cpu")
    attack = ProjectedGradientDescentPyTorch(
        wrapped,
        eps=epsilon,
        eps_step=epsilon / 4,
        max_iter=STEPS,
        batch_size=10_000,
        verbose=False,
    )
    return lambda x, y: torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


def visited(
    model: nn.Module, x: Tensor, y: Tensor, n: int, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Return ``(N,)`` bool twice: right at all iterates of torchattacks' PGD, and at its last."""
    looks: list[Tensor] = []
    every, last = [], []
    handle = model.register_forward_hook(lambda *seen: looks.append(seen[2].detach()))
    for a, b in zip(x.split(n), y.split(n), strict=True):
        looks.clear()
        logits_of(model, torchattacks_pgd(model, epsilon)(a, b).detach())
        right = torch.stack([~misclassified(logits, b) for logits in looks])
        every.append(right.all(0))
        last.append(right[0] & right[-1])
    handle.remove()
    return torch.cat(every), torch.cat(last)


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def told(times: list[float]) -> str:
    return f"{statistics.median(times):6.2f} s ({min(times):.2f} to {max(times):.2f})"


def repeated_fgsm(model: nn.Module, x: Tensor, y: Tensor, n: int) -> Tensor:
    """Bisect every image's epsilon, taking the gradient anew for each, as repeated calls do."""
    low, high = torch.zeros(len(x)), torch.full((len(x),), LIMIT)
    for look in range(1 + math.ceil(math.log2(LIMIT / TOLERANCE))):
        middle = high if look == 0 else (low + high) / 2
        wrong = []
        for a, b, e in zip(x.split(n), y.split(n), middle.split(n), strict=True):
            step = e.view(-1, 1, 1, 1) * input_gradient(model, a, b).sign()
            wrong.append(misclassified(logits_of(model, (a + step).clamp(0, 1)), b))
        broke = torch.cat(wrong)
        if look == 0:
            found = broke
        else:
            high, low = torch.where(broke, middle, high), torch.where(broke, low, middle)
    return torch.where(found, high, torch.inf)


def compare(
    name: str,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    epsilon: float,
    rounds: int,
    left_out: list[str],
) -> None:
    plain = with_layout(model, contiguous)
    attack = PGD(epsilon=epsilon, steps=STEPS, random_start=False)
    theirs = torchattacks_pgd(plain, epsilon)
    some = slice(500)
    tried = [
        (seconds(lambda n=n: in_batches(theirs, x[some], y[some], n)), n) for n in 3 * (100, 250)
    ]
    n = min(tried[2:])[1]  # the first two warm up
    ours = robust_accuracy(model, x, y, attack)
    every, last = visited(plain, x, y, n, epsilon)

    def theirs_in(
        make: Callable[..., Callable[[Tensor, Tensor], Tensor]], net: nn.Module
    ) -> object:
        made = make(net, epsilon)
        return lambda: correct(net, in_batches(made, x, y, n).clamp(0, 1), y, batch_size=n)

    runs = {
        "psinas": lambda: robust_accuracy(model, x, y, attack),
        "torchattacks": theirs_in(torchattacks_pgd, plain),
        "torchattacks, our layout": theirs_in(torchattacks_pgd, with_layout(model, channels_last)),
        "foolbox": theirs_in(foolbox_pgd, plain),
        "art": theirs_in(art_pgd, plain),
    }
    runs = {library: run for library, run in runs.items() if library not in left_out}
    times: dict[str, list[float]] = {library: [] for library in runs}
    for round_ in range(rounds):
        for library, run in runs.items():
            if round_ == 0 or library not in ("foolbox", "art"):  # the slow ones once
                times[library].append(seconds(run))
    print(
        f"\n{name} net, {torch.get_num_threads()} thread(s), {len(x)} images, their batches {n}: "
        f"clean {ours.clean.double().mean():.4f}, PGD-{STEPS} {ours.accuracy:.4f}"
    )
    print(
        f"  masks: {int((ours.robust != every).sum())} images differ from torchattacks' visited "
        f"iterates, {int((ours.robust != last).sum())} from its last iterate"
    )
    for library, took in times.items():
        ratios = [b / a for a, b in zip(times["psinas"], took, strict=False)]
        print(
            f"  {library:24} {told(took)}  {statistics.median(ratios):5.2f} x psinas "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )
    quick = fast_copy(model, x[:2])
    assert quick is not None
    a, b = x[:100], y[:100]
    both = statistics.median(seconds(lambda: input_gradient(quick, a, b)) for _ in range(10)) / 100
    look = statistics.median(seconds(lambda: logits_of(quick, a)) for _ in range(10)) / 100
    limit = ours.backwards * both + (ours.forwards - ours.backwards) * look
    print(
        f"  {ours.forwards} forwards, {ours.backwards} backwards of {STEPS * len(x)} each; the "
        f"layout's limit is {limit:.2f} s, share reached "
        f"{limit / statistics.median(times['psinas']):.2f}"
    )


def compare_curve(model: nn.Module, x: Tensor, y: Tensor, epsilon: float, rounds: int) -> None:
    epsilons = [epsilon * (i + 1) / 10 for i in range(10)]
    attack = PGD(epsilon=epsilon, steps=STEPS, random_start=False)
    ratios, sums = [], []
    for _ in range(rounds):
        curve = seconds(lambda: accuracy_curve(model, x, y, attack, epsilons))
        points = [
            seconds(lambda e=e: robust_accuracy(model, x, y, attack.with_epsilon(e)))
            for e in epsilons
        ]
        ratios.append((curve / points[-1], curve / max(points)))
        sums.append(sum(points) / curve)
    found = accuracy_curve(model, x, y, attack, epsilons)
    single = [robust_accuracy(model, x, y, attack.with_epsilon(e)) for e in epsilons]
    differ = [int((a != s.robust).sum()) for a, s in zip(found.robust, single, strict=True)]
    print(
        f"  curve of 10 epsilons: {statistics.median(r[0] for r in ratios):.2f} x the point at the "
        f"largest epsilon, {statistics.median(r[1] for r in ratios):.2f} x the dearest point; the "
        f"points one by one {statistics.median(sums):.2f} x the curve; masks differ on {differ}"
    )


def compare_smallest(model: nn.Module, x: Tensor, y: Tensor, rounds: int) -> None:
    plain = with_layout(model, contiguous)
    ratios = []
    with evaluating(plain):
        for _ in range(rounds):
            ours = seconds(lambda: minimal_fgsm(model, x, y, limit=LIMIT, tolerance=TOLERANCE))
            ratios.append(seconds(lambda: repeated_fgsm(plain, x, y, 100)) / ours)
        repeated = repeated_fgsm(plain, x, y, 100)
    found = minimal_fgsm(model, x, y, limit=LIMIT, tolerance=TOLERANCE)
    right = found.size > 0
    print(
        f"  smallest FGSM epsilon: repeated FGSM {statistics.median(ratios):.2f} x "
        f"({min(ratios):.2f} to {max(ratios):.2f}); {found.forwards / len(x):.1f} forwards and "
        f"{found.backwards / len(x):.2f} backwards an image; found for "
        f"{int((right & found.size.isfinite()).sum())} of {int(right.sum())}, repeated FGSM for "
        f"{int((right & repeated.isfinite()).sum())}"
    )


class Scaled(nn.Module):
    """A net with larger logits: the same answers."""

    def __init__(self, net: nn.Module, scale: float) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * self.scale


def compare_scales(name: str, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> None:
    attacks: dict[str, Attack] = {
        "FGSM": FGSM(epsilon=epsilon),
        "PGD-20": PGD(epsilon=epsilon, steps=STEPS, random_start=False),
        "APGD-CE-50": APGD(epsilon=epsilon, steps=50),
        "APGD-DLR-50": APGD(epsilon=epsilon, steps=50, loss="dlr"),
    }
    print(f"\n{name} net, {len(x)} images: accuracy in %; the last column is torchattacks' PGD-20")
    print(" scale " + "".join(f"{attack:>13}" for attack in attacks) + f"{'torchattacks':>14}")
    for scale in (1, 2, 6, 10, 20, 40, 100, 1e3, 1e4):
        scaled = Scaled(model, scale).eval()
        found = [
            robust_accuracy(scaled, x, y, attack, generator=torch.Generator().manual_seed(0))
            for attack in attacks.values()
        ]
        theirs = in_batches(torchattacks_pgd(scaled, epsilon), x, y, 100)
        shares = [result.accuracy for result in found]
        shares.append((correct(scaled, x, y) & correct(scaled, theirs, y)).double().mean().item())
        print(f"{scale:6g} " + "".join(f"{100 * share:13.1f}" for share in shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--leave-out", default="", help="libraries, with commas")
    parser.add_argument("--scales", action="store_true", help="accuracies at larger logits alone")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    data, epsilon = data_and_epsilon(arguments.images)
    x, y = data.validation.images(), data.validation.labels
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    nets = {"standard": "none", "adversarially trained": "pgd"}
    for name, adversary in nets.items():
        torch.set_num_threads(os.cpu_count() or 1)
        model = trained(data, adversary, epsilon)
        if arguments.scales:
            compare_scales(name, model, x, y, epsilon)
            continue
        for threads in map(int, arguments.threads.split(",")):
            torch.set_num_threads(threads)
            left_out = arguments.leave_out.split(",")
            compare(name, model, x, y, epsilon, arguments.rounds, left_out)
            compare_curve(model, x, y, epsilon, 1)
            compare_smallest(model, x, y, arguments.rounds)


if __name__ == "__main__":
    main()
