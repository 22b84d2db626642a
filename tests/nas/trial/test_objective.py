"""TRADES and MART: their papers' formulas in plain Python, their images, and what they train."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import pytest
import torch
from torch import nn

from launch.config.config import differing_keys, load_config, parse_config
from metrics.answers import logits_of
from metrics.attacks import ATTACKS, PGD, Attack, DivergencePGD, Noise
from metrics.attacks.losses import divergence
from metrics.stability.input_noise import NoiseCube
from nas.data.arrays import Data, Split
from nas.trial.minibatch import batch_loss, gradients
from nas.trial.objective import mart, trades
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import DepthChannels, FeedForward, Task

CLEAN = [[2.0, -1.0, 0.5], [0.0, 0.3, -0.2], [-1.0, 4.0, 1.0], [0.1, 0.2, 3.0]]
ATTACKED = [[0.5, 0.0, 1.5], [0.2, -0.3, 0.1], [-0.5, 1.0, 2.0], [1.0, 0.2, 2.0]]
LABELS = [0, 1, 1, 2]
BETA = 3.5


# ------------------------------------------------------------------- formulas, in plain Python


def softmax(row):
    powers = [math.exp(z) for z in row]
    return [power / sum(powers) for power in powers]


def entropy_of(row):
    return -sum(p * math.log(p) for p in softmax(row))


def cross_entropy_of(row, label, smoothing=0.0):
    wanted = [smoothing / len(row)] * len(row)
    wanted[label] += 1 - smoothing
    return -sum(w * math.log(p) for w, p in zip(wanted, softmax(row), strict=True))


def kl_of(row, other):
    return sum(p * math.log(p / q) for p, q in zip(softmax(row), softmax(other), strict=True))


def trades_of(row, other, label, beta, smoothing=0.0):
    return cross_entropy_of(row, label, smoothing) + beta * kl_of(row, other)


def mart_of(row, other, label, beta, smoothing=0.0):
    rival = max(p for k, p in enumerate(softmax(other)) if k != label)
    bce = cross_entropy_of(other, label, smoothing) - math.log(1 - rival)
    return bce + beta * kl_of(row, other) * (1 - softmax(row)[label])


FORMULAS = {"trades": (trades, trades_of), "mart": (mart, mart_of)}


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("name", FORMULAS)
def test_each_loss_is_its_papers_formula(name, smoothing):
    ours, theirs = FORMULAS[name]
    clean, attacked = (torch.tensor(v, dtype=torch.float64) for v in (CLEAN, ATTACKED))
    settings = {"beta": BETA, "label_smoothing": smoothing}
    found = ours(clean, attacked, torch.tensor(LABELS), **settings)
    expected = [
        theirs(*rows, BETA, smoothing) for rows in zip(CLEAN, ATTACKED, LABELS, strict=True)
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
def test_their_gradients_are_differences_of_the_formula(name):
    """In both images' logits: neither side of the divergence is taken for constant."""
    ours, theirs = FORMULAS[name]
    clean, attacked = (
        torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (CLEAN, ATTACKED)
    )
    ours(clean, attacked, torch.tensor(LABELS), beta=BETA).sum().backward()
    step = 1e-6
    for at, tensor in enumerate((clean, attacked)):
        for i, label in enumerate(LABELS):
            for k in range(3):
                ends = []
                for sign in (1, -1):
                    rows = [list(CLEAN[i]), list(ATTACKED[i])]
                    rows[at][k] += sign * step
                    ends.append(theirs(*rows, label, BETA))
                slope = (ends[0] - ends[1]) / (2 * step)
                assert tensor.grad[i, k].item() == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("name", FORMULAS)
def test_logits_that_are_far_apart_stay_finite(name):
    """In float32, where probabilities round to 0 and to 1: logits that lead by 200."""
    clean = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    attacked = torch.tensor([[0.0, 200.0, 0.0]], requires_grad=True)
    for label, expected in ((0, {"trades": 200 * BETA, "mart": 400.0}), (1, None)):
        loss = FORMULAS[name][0](clean, attacked, torch.tensor([label]), beta=BETA)
        gradient = torch.autograd.grad(loss.sum(), (clean, attacked))
        assert loss.isfinite().all()
        assert all(g.isfinite().all() for g in gradient)
        if expected:
            assert loss.item() == pytest.approx(expected[name], rel=1e-2)


# ----------------------------------------------------------------------------------- a minibatch


class ByBrightness(nn.Module):
    """Answers the rows of CLEAN to dark images and those of ATTACKED to bright ones, by number."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        rows = [
            (ATTACKED if image[0, 0, 0] > 0.5 else CLEAN)[round(image[0, 0, 1].item() * 10)]
            for image in x
        ]
        return torch.tensor(rows, requires_grad=True)


@dataclass(frozen=True, kw_only=True)
class Brighten(Attack):
    """Makes images bright: an attack of one's own."""

    def perturb(self, model, x, labels, generator):
        x[:, :, 0, 0] = 1
        return x


def pictures():
    x = torch.zeros(4, 1, 1, 2)
    x[:, 0, 0, 1] = torch.arange(4) / 10
    return x, torch.tensor(LABELS)


def of_loss(loss, **settings):
    return Recipe(loss=loss, beta=BETA, **{"adversary": f"{__name__}:Brighten", **settings})


@pytest.mark.parametrize("attacked", [0, 1, 2, 4])
@pytest.mark.parametrize("name", FORMULAS)
def test_the_rest_of_a_minibatch_counts_its_cross_entropy(name, attacked):
    recipe = of_loss(name, adversarial_share=attacked / 4, entropy_weight=0.5)
    model = ByBrightness()
    loss = batch_loss(model, *pictures(), recipe, Brighten(), torch.Generator())
    total = entropy = 0.0
    for i, (row, other, label) in enumerate(zip(CLEAN, ATTACKED, LABELS, strict=True)):
        with_both = FORMULAS[name][1](row, other, label, BETA)
        total += with_both if i < attacked else cross_entropy_of(row, label)
        entropy += entropy_of(other if name == "mart" and i < attacked else row)
    assert loss.item() == pytest.approx((total + 0.5 * entropy) / 4, rel=1e-5)
    # Clean and adversarial images are batches of their own, as in the authors' programs; but a
    # lone image goes with the others.
    assert model.seen == {0: [4], 1: [5]}.get(attacked, [4, attacked])


@pytest.mark.parametrize("name", ["cross-entropy", "mse"])
def test_other_losses_take_one_batch_of_both(name):
    model = ByBrightness()
    recipe = of_loss(name)
    loss = batch_loss(model, *pictures(), recipe, Brighten(), torch.Generator())
    assert model.seen == [4]
    if name == "cross-entropy":
        rows = zip([*ATTACKED[:2], *CLEAN[2:]], LABELS, strict=True)
        assert loss.item() == pytest.approx(sum(cross_entropy_of(*r) for r in rows) / 4, rel=1e-5)


def test_batch_norm_sees_clean_and_adversarial_images_apart():
    """The running mean after a clean batch of mean a and an adversarial one of mean b."""
    model = nn.Sequential(nn.BatchNorm2d(1, momentum=0.1, affine=False), nn.Flatten())
    model.train()
    x = torch.zeros(4, 1, 1, 2)
    recipe = of_loss("trades")
    batch_loss(model, x, torch.tensor([0, 1, 1, 0]), recipe, Brighten(), torch.Generator())
    assert model[0].num_batches_tracked == 2
    assert model[0].running_mean.item() == pytest.approx(0.9 * (0.1 * 0.0) + 0.1 * 0.5)


def net(channels=6):
    space = FeedForward(kinds=("conv",), channels=(channels,), units=(30,), dropout=(0.0,))
    answers = {name: choices[0] for name, choices in space.decisions().items()}
    return space.build(space.architecture(answers), Task.plain((1, 6, 6), 3), seed=1).double()


def noise(count):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, 1, 6, 6, generator=generator, dtype=torch.float64)
    return x, torch.arange(count) % 3


@pytest.mark.parametrize("share", [0.4, 1.0])
@pytest.mark.parametrize("name", FORMULAS)
def test_without_batch_norm_micro_batches_are_whole_ones(name, share):
    x, y = noise(10)
    recipe = Recipe(
        loss=name, adversarial_share=share, epsilon=0.1, steps=2, entropy_weight=0.3,
        label_smoothing=0.1,
    )  # fmt: skip
    found = []
    for micro_batch in (None, 4):  # in parts of 4, 3 and 3
        model, generator = net(), torch.Generator().manual_seed(3)
        loss = gradients(model, x, y, recipe, recipe.attack(), generator, micro_batch)
        found.append((loss, [p.grad for p in model.parameters()]))
    assert found[1][0].item() == pytest.approx(found[0][0].item(), rel=1e-6)
    for part, whole in zip(found[1][1], found[0][1], strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-4, atol=1e-7)  # float32 logits


# ------------------------------------------------------------------------------- images of TRADES


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.1), ("l2", 0.8), ("linf", 1e-4)])
def test_the_divergence_climbs_inside_ball_and_box(norm, epsilon):
    model, (x, _) = net(), noise(20)
    x[:5] = x[:5].round()  # at the borders of the box
    attack = DivergencePGD(epsilon=epsilon, steps=10, norm=norm)
    start = replace(attack, steps=1, step_size=1e-12)
    heights = []
    for made in (start, attack):
        images = made(model, x, generator=torch.Generator().manual_seed(1))
        delta = (images - x).flatten(1)
        length = delta.abs().amax(dim=1) if norm == "linf" else delta.norm(dim=1)
        assert length.max() <= epsilon
        assert images.min() >= 0
        assert images.max() <= 1
        heights.append(divergence(logits_of(model, x), logits_of(model, images)))
    assert (heights[1] > heights[0]).all()
    if epsilon > 0.01:  # and far higher than noise of that length
        random = Noise(epsilon=epsilon, region="cube" if norm == "linf" else "sphere")
        shown = random(model, x, generator=torch.Generator().manual_seed(2))
        assert (
            heights[1].mean() > 5 * divergence(logits_of(model, x), logits_of(model, shown)).mean()
        )


def test_it_begins_beside_the_image_by_a_thousandth():
    """And not at it, where the divergence is 0 and least, and its gradient zero."""
    x = torch.full((200, 1, 6, 6), 0.5, dtype=torch.float64)
    attack = DivergencePGD(epsilon=0.1, steps=1, step_size=1e-12)
    delta = attack(net(), x, generator=torch.Generator().manual_seed(1)) - x
    assert delta.std().item() == pytest.approx(0.001, rel=0.05)
    assert delta.mean().item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_looks_at_images_inside_ball_and_box_alone(norm):
    """Of white and black ones too, which its start would leave by a thousandth."""
    model, (x, _) = net(), noise(20)
    x = x.round()
    seen = []
    model.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].detach()))
    DivergencePGD(epsilon=1e-4, steps=2, norm=norm)(model, x, generator=torch.Generator())
    assert len(seen) == 3  # the clean images, the start and the first step
    for images in seen:
        delta = (images - x).flatten(1)
        assert (delta.abs().amax(dim=1) if norm == "linf" else delta.norm(dim=1)).max() <= 1e-4
        assert images.min() >= 0
        assert images.max() <= 1


def test_it_climbs_away_from_the_prediction_and_not_from_the_label():
    """Of two classes with logits ±w·x, KL falls and rises with |w·(x' - x)|: by hand."""

    class Linear(nn.Module):
        def forward(self, x):
            z = 3 * x[:, 0, 0, 0] - 2 * x[:, 0, 0, 1]
            return torch.stack([z, -z], dim=1)

    x = torch.full((50, 1, 1, 2), 0.5)
    attack = DivergencePGD(epsilon=0.1, steps=5)
    generator = torch.Generator().manual_seed(0)
    delta = (attack(Linear(), x, generator=generator) - x)[:, 0, 0]
    sides = delta[:, 0].sign()  # which way the start went decides
    torch.testing.assert_close(delta, 0.1 * torch.stack([sides, -sides], dim=1))
    assert 5 < (sides > 0).sum() < 45
    with_labels = attack(
        Linear(), x, torch.ones(50, dtype=torch.long), generator=generator.manual_seed(0)
    )
    assert torch.equal(with_labels - x, delta[:, None, None])


def test_a_certain_net_has_a_gradient_too():
    """Labels that lead by 12, where float32 would get a third of the signs wrong.

    Of logits W x + b the gradient is W^T (p(x') - p(x)), here in float64.
    """
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 10))
    with torch.no_grad():
        model[1].weight.copy_(0.3 * torch.randn(10, 16, generator=generator))
        model[1].bias.copy_(torch.tensor([12.0] + 9 * [0.0]))
    x = torch.full((200, 1, 4, 4), 0.5)
    start, made = (
        DivergencePGD(epsilon=0.1, steps=1, step_size=size)(
            model, x, generator=generator.manual_seed(1)
        )
        for size in (1e-12, 0.05)
    )
    exact = model.double()
    here, there = (exact(images.double()).softmax(dim=1) for images in (x, start))
    gradient = (there - here) @ exact[1].weight
    agree = (made - start).flatten(1).sign() == gradient.sign()
    assert agree.double().mean() > 0.98


def test_it_attacks_in_eval_and_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 3))
    model = model.double().train()
    before = {name: v.clone() for name, v in model.state_dict().items()}
    x, _ = noise(8)
    once, again = (
        DivergencePGD(epsilon=0.1)(model, x, generator=torch.Generator().manual_seed(1))
        for _ in range(2)
    )
    assert torch.equal(once, again)  # no dropout
    assert model.training
    assert all(torch.equal(v, before[name]) for name, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


# --------------------------------------------------------------------------------------- recipes


def test_the_loss_decides_the_share_unless_it_is_given():
    shares = {
        name: Recipe(loss=name).attacked_share for name in ("cross-entropy", "mse", *FORMULAS)
    }
    assert shares == {"cross-entropy": 0.5, "mse": 0.5, "trades": 1.0, "mart": 1.0}
    assert replace(Recipe(), loss="trades").attacked_share == 1.0
    assert replace(Recipe(adversarial_share=0.5), loss="trades").attacked_share == 0.5
    assert Recipe().hash == Recipe(adversarial_share=0.5).hash == "be5c8ceaf2963206"
    assert Recipe(loss="mart").hash == Recipe(loss="mart", adversarial_share=1).hash
    assert Recipe(loss="mart").hash != Recipe(loss="mart", adversarial_share=0.5).hash
    assert Recipe(**asdict(Recipe(loss="trades"))) == Recipe(loss="trades")


def searched(config):
    """Return loss -> share and hash of the trials of a configuration."""
    plan = config.plan()
    first = {name: choices[0] for name, choices in plan.decisions.items()}
    trials = [plan.trial({**first, "recipe.loss": loss}) for loss in plan.decisions["recipe.loss"]]
    return {t.recipe.loss: (t.recipe.attacked_share, t.recipe.hash) for t in trials}


@pytest.mark.parametrize(
    ("given", "shares"), [({}, (0.5, 1.0)), ({"adversarial_share": 0.5}, (0.5, 0.5))]
)
def test_losses_are_varied_each_with_its_own_share(given, shares):
    document = {"recipe": given, "vary": {"recipe.loss": ["cross-entropy", "trades"]}}
    config = parse_config(document)
    found = searched(config)
    assert (found["cross-entropy"][0], found["trades"][0]) == shares
    again = parse_config({**config.resolved(), "made_with": {}})  # as a resumed search reads it
    assert searched(again) == found
    assert not differing_keys(config, again)


def test_a_run_from_before_goes_on_with_its_share():
    """Its config.yaml says 0.5, where what it was made from says nothing."""
    for vary in ({}, {"recipe.loss": ["cross-entropy", "mse"]}):
        now = load_config("digits", [f"vary={vary}"])
        before = load_config("digits", [f"vary={vary}", "recipe.adversarial_share=0.5"])
        assert not differing_keys(before, now)
        other = load_config("digits", [f"vary={vary}", "recipe.adversarial_share=0.7"])
        assert differing_keys(before, other) == ["recipe.adversarial_share"]
    vary = {"recipe.loss": ["cross-entropy", "trades"]}  # where the two are not the same search
    given = [load_config("digits", [f"vary={vary}", f"recipe.adversarial_share={v}"])
             for v in (0.5, "null")]  # fmt: skip
    assert differing_keys(*given) == ["recipe.adversarial_share"]


@dataclass(frozen=True, kw_only=True)
class InL2(PGD):
    norm: str = "l2"


def test_the_adversary_of_a_loss(monkeypatch):
    monkeypatch.setitem(ATTACKS, "pgd-l2", InL2)
    settings = {"epsilon": 0.1, "steps": 4, "step_size": 0.02}
    assert Recipe(loss="trades", **settings).attack() == DivergencePGD(**settings)
    in_l2 = Recipe(loss="trades", adversary="pgd-l2", **settings)
    assert in_l2.attack() == DivergencePGD(**settings, norm="l2")
    assert in_l2.judge() == PGD(**settings, norm="l2")
    assert Recipe(loss="mart", **settings).attack() == PGD(**settings)
    assert type(Recipe(loss="trades", adversary="noise-cube").attack()) is NoiseCube
    assert type(of_loss("trades").attack()).__name__ == "Brighten"
    assert Recipe(loss="mart", adversary="fgsm").attack().leaks_labels


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"loss": "trades", "adversary": "none"}, "^adversary: expected one for the loss trades"),
        ({"loss": "mart", "adversary": "none"}, "^adversary: expected one for the loss mart"),
        ({"loss": "trades", "adversary": "fgsm"}, "^adversary: expected pgd, .* got fgsm"),
        ({"loss": "trades", "adversary": "apgd"}, "^adversary: expected pgd, .* got apgd"),
        ({"loss": "trades", "beta": -1}, r"^beta: expected a finite number >= 0, got -1"),
        ({"loss": "mart", "beta": math.nan}, "^beta: expected a finite number >= 0, got nan"),
        ({"adversarial_share": 1.5}, r"^adversarial_share: expected a share in \[0, 1\], got 1.5"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(settings, match):
    with pytest.raises(ValueError, match=match) as refused:
        Recipe(**settings)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "settings", [{"restarts": 2}, {"target": "labels"}, {"random_start": False}]
)
def test_an_ascent_on_the_divergence_has_one_random_start(settings):
    with pytest.raises(ValueError, match="^expected one random start and no target"):
        DivergencePGD(**settings)


# -------------------------------------------------------------------------------------- training


@pytest.mark.slow
def test_training_makes_nets_more_robust_than_clean_training(digits):
    robust = {}
    for loss, adversary in (("cross-entropy", "none"), ("trades", "pgd"), ("mart", "pgd")):
        recipe = Recipe(
            loss=loss, adversary=adversary, epochs=6, batch_size=32, epsilon=0.1, steps=3,
            learning_rate=0.05,
        )  # fmt: skip
        space = DepthChannels(depth=(2,), channels=(8,), stem="small")
        model = space.build(next(iter(space)), digits.task, seed=0)
        generator = torch.Generator().manual_seed(0)
        training = drain(train(model, digits, recipe, recipe.attack(), generator))
        robust[loss] = training.last.robust_accuracy
    assert min(robust["trades"], robust["mart"]) > robust["cross-entropy"] + 0.1, robust


def test_an_epoch_may_end_in_a_part_of_one_adversarial_image():
    """Whose 1 x 1 features batch norm could not normalise alone."""
    generator = torch.Generator().manual_seed(0)
    part = Split(torch.rand(10, 1, 4, 4, generator=generator), torch.arange(10) % 3)
    data = Data(part, part, Task.plain((1, 4, 4), 3))
    space = DepthChannels(depth=(2,), channels=(4,), stem="imagenet")
    model = space.build(next(iter(space)), data.task)
    recipe = Recipe(
        loss="trades", epochs=1, batch_size=10, adversarial_share=0.1, steps=1, epsilon=0.1
    )
    attack = recipe.attack()
    assert drain(train(model, data, recipe, attack, torch.Generator())).last.epoch == 1
