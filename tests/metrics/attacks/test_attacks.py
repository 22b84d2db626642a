"""The contract of the attacks, against formulas on models whose gradient is known."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from metrics.answers import input_gradient
from metrics.attacks import (
    APGD,
    FAB,
    FGSM,
    PGD,
    Noise,
    Square,
    SquareL2,
    StepLL,
    TargetedAPGD,
    Transfer,
)
from metrics.attacks.geometry import Randomness, in_ball
from metrics.left_as_found import evaluating
from metrics.robustness.accuracy import correct, robust_accuracy

EPSILON = 8 / 255
SOURCE = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
ATTACKS = [
    FGSM(epsilon=EPSILON),
    FGSM(epsilon=0.5, norm="l2"),
    StepLL(epsilon=EPSILON),
    PGD(epsilon=EPSILON, step_size=2 / 255, steps=3),
    PGD(epsilon=EPSILON, steps=3, random_start=False),
    PGD(epsilon=EPSILON, steps=2, restarts=3),
    PGD(epsilon=0.5, step_size=0.2, steps=3, norm="l2"),
    PGD(epsilon=0.5, step_size=0.2, steps=3, norm="l2", random_start=False),
    PGD(epsilon=EPSILON, steps=3, target="least-likely"),
    PGD(epsilon=EPSILON, steps=3, target="runner-up", random_start=False),
    PGD(epsilon=EPSILON, steps=3, target="labels", restarts=2),
    APGD(epsilon=EPSILON, steps=10),
    APGD(epsilon=EPSILON, steps=10, loss="dlr", restarts=2),
    APGD(epsilon=0.5, steps=10, norm="l2"),
    APGD(epsilon=EPSILON, steps=10, loss="dlr", target="runner-up"),
    TargetedAPGD(epsilon=EPSILON, steps=5, targets=3),
    TargetedAPGD(epsilon=0.5, norm="l2", steps=5, targets=2, restarts=2, loss="ce"),
    FAB(epsilon=EPSILON, steps=3, targets=2),
    FAB(epsilon=0.5, norm="l2", steps=3, targets=2),
    Square(epsilon=EPSILON, queries=10),
    SquareL2(epsilon=0.5, queries=10),
    Noise(epsilon=EPSILON),
    Noise(epsilon=EPSILON, distribution="gaussian", draws=3),
    Noise(epsilon=0.5, region="ball"),
    Noise(epsilon=0.5, region="ball", distribution="gaussian"),
    Noise(epsilon=0.5, region="sphere", draws=2),
    Transfer(source=SOURCE, attack=PGD(epsilon=EPSILON, steps=2)),
]
STILL = FGSM | StepLL | FAB
RANDOM = [a for a in ATTACKS if not isinstance(a, STILL) and getattr(a, "random_start", 1)]
every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=repr)


@pytest.fixture
def images():
    return torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels():
    return torch.tensor([0, 1, 2, 3, 4, 5])


@pytest.fixture
def net():
    """A net with everything that can be left in disorder."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(144, 10)).train()
    model[1].eval()  # frozen batch norm inside a training model
    model[0].weight.requires_grad_(False)
    model[5].weight.grad = torch.ones_like(model[5].weight)
    return model


def state(model):
    tensors = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    return tensors, modes, [p.requires_grad for p in model.parameters()], grads


def assert_same_state(a, b):
    assert a[1:3] == b[1:3]
    assert all(torch.equal(a[0][k], b[0][k]) for k in a[0])
    assert all((p is None) == (q is None) for p, q in zip(a[3], b[3], strict=True))
    assert all(p is None or torch.equal(p, q) for p, q in zip(a[3], b[3], strict=True))


@every_attack
def test_stays_in_the_ball_and_the_box(attack, net, images, labels):
    adversarial = attack(net, images, labels, generator=torch.Generator().manual_seed(0))
    delta = (adversarial - images).flatten(1)
    length = delta.abs().amax(1) if attack.distance == "linf" else delta.norm(dim=1)
    assert (length <= attack.epsilon + 1e-6).all()
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    moved = (delta != 0).any(dim=1)
    nearest = isinstance(attack, FAB) & ~correct(net, images, labels)  # the image itself
    assert (moved | nearest).all()


@every_attack
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_leaves_model_and_images_as_found(attack, mode, net, images, labels):
    before, copy = state(net), images.clone()
    with mode():
        adversarial = attack(net, images, labels)
    assert_same_state(before, state(net))
    assert torch.equal(images, copy)
    assert not adversarial.requires_grad


def test_modes_come_back_after_an_exception(net, images, labels):
    before = state(net)
    with pytest.raises(ValueError, match="expected a shape that the model takes"):
        FGSM()(net, images[..., :5], labels)
    assert_same_state(before, state(net))


@every_attack
def test_the_generator_decides(attack, net, images, labels):
    torch.manual_seed(0)
    a = attack(net, images, labels, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(1)
    b = attack(net, images, labels, generator=torch.Generator().manual_seed(5))
    c = attack(net, images, labels, generator=torch.Generator().manual_seed(6))
    assert torch.equal(a, b)
    assert torch.equal(a, c) == (attack not in RANDOM)


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def loss_gradient(model, x, y):
    """(p - onehot) W for a linear model: no autograd."""
    p = model(x).softmax(1) - nn.functional.one_hot(y, 10)
    return (p @ model[1].weight).view_as(x).detach()


def test_the_input_gradient_is_each_images_own(images, labels):
    """The margin loss is the inverse softplus of the cross entropy, whose gradient it divides."""
    model = linear()
    found = input_gradient(model, images, labels)
    others = 1 - model(images).softmax(1).gather(1, labels[:, None]).view(-1, 1, 1, 1)
    assert torch.allclose(found * others, loss_gradient(model, images, labels), atol=1e-6)


def test_fgsm_is_the_formula(images, labels):
    model = linear()
    gradient = loss_gradient(model, images, labels)
    expected = (images + EPSILON * gradient.sign()).clamp(0, 1)
    assert torch.allclose(FGSM(epsilon=EPSILON)(model, images, labels), expected, atol=1e-6)
    length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    expected = (images + 0.3 * gradient / length).clamp(0, 1)
    assert torch.allclose(FGSM(epsilon=0.3, norm="l2")(model, images, labels), expected, atol=1e-5)


def test_step_ll_goes_to_the_least_likely_class(images, labels):
    model = linear()
    least = model(images).argmin(1)
    expected = (images - EPSILON * loss_gradient(model, images, least).sign()).clamp(0, 1)
    attack = StepLL(epsilon=EPSILON)
    assert torch.allclose(attack(model, images, None), expected, atol=1e-6)
    assert torch.equal(attack(model, images, labels), attack(model, images, None))


def test_fgsm_is_pgd_with_one_step(net, images, labels):
    one = PGD(epsilon=EPSILON, step_size=EPSILON, steps=1, random_start=False)
    assert torch.equal(FGSM(epsilon=EPSILON)(net, images, labels), one(net, images, labels))


def test_without_labels_the_predicted_ones_are_used(net, images):
    with evaluating(net), torch.no_grad():
        predicted = net(images).argmax(1)
    assert torch.equal(FGSM()(net, images), FGSM()(net, images, predicted))


def test_the_attack_sees_the_model_in_eval_mode(images, labels):
    """With dropout on, two runs would differ."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 10)).train()
    assert torch.equal(FGSM()(model, images, labels), FGSM()(model, images, labels))


def test_the_step_does_not_depend_on_the_batch(net, images, labels):
    attack = PGD(epsilon=0.5, step_size=0.2, steps=3, norm="l2", random_start=False)
    together = attack(net, images, labels)
    alone = torch.cat([attack(net, images[i : i + 1], labels[i : i + 1]) for i in range(6)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_more_restarts_never_leave_more_images_right(digits_net, digits):
    x, y = digits.validation.images(), digits.validation.labels
    right = []
    for restarts in (1, 2, 5):
        attack = PGD(epsilon=0.1, step_size=0.1, steps=1, restarts=restarts)
        generator = torch.Generator().manual_seed(0)
        adversarial = attack(digits_net, x, y, generator=generator)
        right.append(correct(digits_net, adversarial, y))
    assert not (right[1] & ~right[0]).any()  # the first start is the same draw
    assert not (right[2] & ~right[1]).any()


@pytest.mark.parametrize("restarts", [1, 3])
def test_a_model_that_breaks_under_attack_is_not_robust(restarts, images):
    class Breaks(nn.Module):  # right on the clean images, NaN beside them
        def forward(self, x):
            near = (x - images[: len(x)]).abs().flatten(1).amax(1, keepdim=True)
            return torch.where(near > 0, torch.nan, 1.0) * torch.tensor([1.0, 0.0, 0.0])

    attack = PGD(epsilon=0.1, steps=2, restarts=restarts)
    result = robust_accuracy(Breaks(), images, torch.zeros(6, dtype=torch.long), attack)
    assert result.accuracy == 0


def test_uniform_in_the_l2_ball():
    """P(|u| <= t) = (t / epsilon)^n, so the mean of |u| / epsilon is n / (n + 1)."""
    x = torch.full((4000, 1, 2, 2), 0.5)
    drawn = in_ball((1, 2, 2), "l2", Randomness(x, torch.Generator().manual_seed(0)))
    length = drawn.flatten(1).norm(dim=1)
    assert length.max() <= 1 + 1e-5
    n = 4
    spread = math.sqrt(n / (n + 2) - (n / (n + 1)) ** 2) / math.sqrt(4000)
    assert abs(length.mean().item() - n / (n + 1)) < 5 * spread


def test_the_cube_the_ball_and_the_sphere():
    """Where each noise lies, and that the sphere's has no other length."""
    x = torch.full((500, 1, 4, 4), 0.5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))

    def drawn(**settings):
        attack = Noise(epsilon=0.4, **settings)
        delta = attack(model, x, generator=torch.Generator().manual_seed(0)) - x
        return delta.flatten(1)

    cube = drawn(region="cube")
    assert cube.abs().max() <= 0.4
    assert cube.std().item() == pytest.approx(0.4 / math.sqrt(3), rel=0.02)
    assert torch.allclose(drawn(region="sphere").norm(dim=1), torch.tensor(0.4), atol=1e-5)
    gaussian = drawn(region="ball", distribution="gaussian").norm(dim=1)
    assert gaussian.max() <= 0.4 + 1e-6
    assert 0.3 < gaussian.mean() < 0.4
    spread = drawn(region="cube", distribution="gaussian")
    assert spread.abs().max() <= 0.4 + 1e-6
    assert spread.std().item() == pytest.approx(0.2, rel=0.15)


def test_targets(images):
    """One step towards a class is one step down its loss."""
    model = linear()
    logits = model(images)
    y = logits.argmax(1)
    runner_up = logits.topk(2).indices[:, 1]
    for target, aim in (("least-likely", logits.argmin(1)), ("runner-up", runner_up)):
        attack = PGD(epsilon=EPSILON, step_size=EPSILON, steps=1, random_start=False, target=target)
        expected = (images - EPSILON * loss_gradient(model, images, aim).sign()).clamp(0, 1)
        assert torch.allclose(attack(model, images, y), expected, atol=1e-6)
    to_labels = PGD(epsilon=0.5, steps=20, target="labels")
    wanted = (y + 1) % 10
    assert (model(to_labels(model, images, wanted)).argmax(1) == wanted).all()


def test_square_on_a_linear_model_goes_where_the_weights_point(images):
    """With enough queries every pixel is at x ± epsilon, and the loss near its largest."""
    model = linear()
    x = images * 0.8 + 0.1  # away from the box
    y = model(x).argmax(1)
    found = Square(epsilon=0.01, queries=2000)(
        model, x, y, generator=torch.Generator().manual_seed(0)
    )
    assert torch.allclose((found - x).abs(), torch.tensor(0.01), atol=1e-6)

    def margin(x):
        z = model(x)
        return z.gather(1, y[:, None]).squeeze(1) - z.scatter(1, y[:, None], -9e9).amax(1)

    random = Square(epsilon=0.01, queries=1)(
        model, x, y, generator=torch.Generator().manual_seed(0)
    )
    fgsm = FGSM(epsilon=0.01)(model, x, y)
    reached = (margin(x) - margin(found)) / (margin(x) - margin(fgsm))
    broken = margin(found) < 0  # the first image that breaks is the one that is returned
    assert not broken.all()
    assert ((reached > 0.8) | broken).all()
    assert ((margin(found) < margin(random)) | broken).all()


def test_apgds_checkpoints_are_the_papers():
    """Croce and Hein, section 3.1: p = 0, .22, then each gap .03 shorter, at least .06."""
    from metrics.attacks.apgd import checkpoints

    expected = [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(checkpoints(100)) == expected
    assert list(checkpoints(100).values()) == [22, 19, 16, 13, 10, 7, 6, 6]


def apgd_by_hand(model, x, y, start, epsilon, steps):
    """Algorithm 1 of Croce and Hein for one image, written with lists."""
    from metrics.attacks.apgd import checkpoints

    def inside(z):
        return (x + (z - x).clamp(-epsilon, epsilon)).clamp(0, 1)

    def look(z):
        leaf = z.clone().requires_grad_()
        logits = model(leaf)
        loss = nn.functional.cross_entropy(logits, y)
        gradient = torch.autograd.grad(loss, leaf)[0]
        return loss.item(), gradient, bool(logits.argmax() != y)

    eta, halved, z = 2 * epsilon, True, start
    loss, gradient, wrong = look(z)
    if wrong:
        return z
    losses, previous = [loss], z
    best = best_at_check = loss
    best_z, best_gradient = z, gradient
    for k in range(1, steps + 1):
        ahead = inside(z + eta * gradient.sign())
        alpha = 1.0 if k == 1 else 0.75
        z, previous = inside(z + alpha * (ahead - z) + (1 - alpha) * (z - previous)), z
        loss, gradient, wrong = look(z)
        if wrong:
            return z
        losses.append(loss)
        if loss > best:
            best, best_z, best_gradient = loss, z, gradient
        if (interval := checkpoints(steps).get(k)) is not None:
            rises = sum(
                b > a for a, b in zip(losses[-interval - 1 :], losses[-interval:], strict=False)
            )
            halved = rises <= 0.75 * interval or (not halved and best_at_check == best)
            best_at_check = best
            if halved:
                eta, z, gradient = eta / 2, best_z, best_gradient
    return best_z


def test_apgd_is_the_papers_algorithm(digits_net, digits):
    """In float64, losses too: in float32 a batch rounds otherwise than one image does, which turns
    near-zero gradients, and of two iterates with equal losses either is the largest."""
    net = copy.deepcopy(digits_net).double()
    x, y = digits.validation.images(slice(60)).double(), digits.validation.labels[:60]
    attack = APGD(epsilon=0.03, steps=40)
    found = attack(net, x, y, generator=torch.Generator().manual_seed(0))
    draws = torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    noise = 2 * draws - 1
    start = (x + 0.03 * noise / noise.flatten(1).abs().amax(1).view(-1, 1, 1, 1)).clamp(0, 1)
    with evaluating(net):
        expected = torch.cat(
            [apgd_by_hand(net, x[[i]], y[[i]], start[[i]], 0.03, 40) for i in range(len(y))]
        )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert 10 < correct(net, found, y).sum() < 55


def test_dlr_by_hand():
    from metrics.attacks.losses import dlr, targeted_dlr

    logits = torch.tensor([[4.0, 1.0, 3.0, 0.0], [1.0, 2.0, 0.0, 4.0]])
    assert torch.allclose(dlr(logits, torch.tensor([0, 1])), torch.tensor([-1 / 3, 2 / 3]))
    assert torch.allclose(dlr(100 * logits, torch.tensor([0, 1])), torch.tensor([-1 / 3, 2 / 3]))
    # -(z_1st - z_t) / (z_1st - (z_3rd + z_4th) / 2)
    found = targeted_dlr(logits, torch.tensor([2, 1]))
    assert torch.allclose(found, torch.tensor([-1 / 3.5, -2 / 3.5]))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: PGD(target="cat"), "target.*least-likely.*cat"),
        (lambda: APGD(loss="mse"), "loss.*dlr.*mse"),
        (lambda: APGD(steps=0), "steps >= 1"),
        (lambda: APGD(norm="l1"), "l1"),
        (lambda: Square(queries=0), "queries >= 1"),
        (lambda: Square(share=0), "share"),
        (lambda: Noise(region="torus"), "region.*sphere.*torus"),
        (lambda: Noise(distribution="cauchy"), "cauchy"),
        (lambda: Noise(draws=0), "draws >= 1"),
        (lambda: FGSM(epsilon=8), "8/255, got 8"),
        (lambda: FGSM(epsilon=-0.1), "epsilon"),
        (lambda: FGSM(epsilon=math.nan), "epsilon"),
        (lambda: FGSM(norm="l7"), "l7"),
        (lambda: PGD(steps=0), "steps >= 1, got 0"),
        (lambda: PGD(restarts=0), "restarts >= 1"),
        (lambda: PGD(step_size=2), "step_size"),
    ],
)
def test_bad_settings_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "uint8"),
        (torch.full((2, 1, 8, 8), 255.0), "255"),
        (torch.full((2, 1, 8, 8), -0.1), "-0.1"),
        (torch.full((2, 1, 8, 8), math.nan), "nan"),
        (torch.zeros(2, 64), "N, C, H, W"),
    ],
)
def test_bad_images_are_refused(bad, match):
    with pytest.raises(ValueError, match=match):
        FGSM()(linear(), bad, torch.zeros(2, dtype=torch.long))


# --------------------------------------------------------------------------- models that misbehave


@pytest.mark.parametrize("attack", [a for a in ATTACKS if a is not ATTACKS[-1]], ids=repr)
@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (3, 3, 5, 9), (2, 1, 1, 4)], ids=str)
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_odd_shapes_and_few_classes(attack, shape, classes):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape[1:]), classes))
    x, y = torch.rand(shape), torch.zeros(shape[0], dtype=torch.long)
    aim = {None: 3}.get(attack.towards, 4)
    needs = aim if getattr(attack, "loss", "") == "dlr" else 2
    if classes < needs:
        with pytest.raises(ValueError, match=f"at least {needs} classes, got {classes}"):
            attack(model, x, y)
        return
    adversarial = attack(model, x, y)
    assert adversarial.shape == x.shape
    assert adversarial.isfinite().all()
    if attack.target != "labels" if hasattr(attack, "target") else True:
        assert 0 <= robust_accuracy(model, x, y, attack).accuracy <= 1


def test_probabilities_are_attacked_as_logits(digits_net, digits):
    x, y = digits.validation.images(), digits.validation.labels
    model = nn.Sequential(digits_net, nn.Softmax(1))
    result = robust_accuracy(model, x, y, PGD(epsilon=0.1, steps=5, random_start=False))
    assert 0 < result.accuracy < correct(model, x, y).double().mean().item() - 0.3


@pytest.mark.parametrize("attack", [FGSM(), PGD(steps=2), APGD(steps=3), PGD(norm="l2", steps=2)])
def test_a_nan_gradient_moves_nothing_and_is_counted(attack, images):
    class NaNGradient(nn.Module):
        def forward(self, x):
            zero = (x.flatten(1)[:, :1] - x.flatten(1)[:, :1]).sqrt()
            return torch.cat([1 + zero, zero, zero], dim=1)

    y = torch.zeros(6, dtype=torch.long)
    assert attack(NaNGradient(), images, y).isfinite().all()
    result = robust_accuracy(NaNGradient(), images, y, attack)
    assert (result.accuracy, result.nonfinite_gradients) == (1.0, 6)


def test_a_model_made_under_inference_mode_is_refused(images, labels):
    with torch.inference_mode():
        model = linear()
    with pytest.raises(ValueError, match="inference_mode"):
        FGSM()(model, images, labels)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_accuracy_works_in_any_mode(mode, digits_net, digits):
    x, y = digits.validation.images(), digits.validation.labels
    expected = robust_accuracy(digits_net, x, y, PGD(steps=3, random_start=False))
    with mode():
        found = robust_accuracy(digits_net, x * 1, y * 1, PGD(steps=3, random_start=False))
    assert torch.equal(found.robust, expected.robust)


def test_accuracy_leaves_the_model_as_found(net, images, labels):
    before = state(net)
    robust_accuracy(net, images, labels, PGD(steps=2))
    assert_same_state(before, state(net))
    assert not any(m._forward_hooks for m in net.modules())


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (nn.Flatten(), None),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), r"classes >= 2.*got \(\d, 1\)"),
        (nn.Conv2d(1, 10, 3), "expected logits"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "classes 0 ... 2.*got 0 ... 5"),
    ],
)
def test_logits_that_do_not_fit_are_refused(model, match, images, labels):
    if match is None:  # 64 classes for six labels are no error
        assert 0 <= robust_accuracy(model, images, labels, FGSM()).accuracy <= 1
        return
    for call in (lambda: FGSM()(model, images, labels), lambda: correct(model, images, labels)):
        with pytest.raises(ValueError, match=match):
            call()


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_a_model_that_writes_to_its_input(attack, images, labels):
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = linear()

        def forward(self, x):
            return self.net(x.sub_(0.5))

    class Reads(Writes):
        def forward(self, x):
            return self.net(x - 0.5)

    model, twin, x = Writes(), Reads(), images.clone()
    seeds = [torch.Generator().manual_seed(0) for _ in "ab"]
    assert torch.equal(
        attack(model, x, labels, generator=seeds[0]), attack(twin, x, labels, generator=seeds[1])
    )
    if getattr(attack, "target", None) != "labels":
        robust_accuracy(model, x, labels, attack)
    assert torch.equal(x, images)


def test_buffers_that_change_in_eval_come_back(images, labels):
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = linear()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("mean", torch.zeros(1, 1, 8, 8))

        def forward(self, x):
            self.calls += 1
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0, keepdim=True)  # a new tensor
            return self.net(x)

    model = Counts()
    kept = model.mean
    for run in (lambda: FGSM()(model, images, labels), lambda: correct(model, images, labels),
                lambda: robust_accuracy(model, images, labels, FGSM())):  # fmt: skip
        run()
        assert model.calls == 0
        assert model.mean is kept
        assert not kept.any()


def test_tiny_and_huge_gradients_keep_their_direction():
    """float32 squares of 1e-25 are zero and of 1e25 infinite."""
    from metrics.attacks.geometry import unit

    v = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)) + 0.1
    for scale in (1e-36, 1e-25, 1.0, 1e25):
        assert torch.allclose(unit(v * scale), unit(v), atol=1e-6)
    assert unit(v).flatten().norm().item() == pytest.approx(1)
    assert not unit(torch.zeros(1, 1, 4, 4)).any()


def test_labels_of_any_integer_type(digits_net, digits):
    x, y = digits.validation.images(slice(20)), digits.validation.labels[:20]
    attack = PGD(epsilon=0.1, steps=2, random_start=False)
    assert torch.equal(attack(digits_net, x, y.int()), attack(digits_net, x, y))
    results = [robust_accuracy(digits_net, x, labels, attack) for labels in (y, y.int())]
    assert torch.equal(results[0].robust, results[1].robust)


def test_a_larger_epsilon_takes_no_impossible_step():
    attack = PGD(epsilon=8 / 255, step_size=10 / 255).with_epsilon(1.0)
    assert (attack.epsilon, attack.step_size) == (1.0, 1.0)


def test_transfer_towards_labels_is_refused():
    with pytest.raises(ValueError, match="target"):
        Transfer(source=SOURCE, attack=PGD(target="labels"))


@pytest.mark.parametrize("bad", [torch.zeros(5, dtype=torch.long), torch.zeros(6)])
def test_labels_that_do_not_fit_are_refused(bad, images):
    with pytest.raises(ValueError, match="labels"):
        FGSM()(linear(), images, bad)


# ---------------------------------------------------------------------------------------- accuracy


def test_robust_accuracy_counts(digits_net, digits):
    x, y = digits.validation.images(), digits.validation.labels
    attack = FGSM(epsilon=0.1)
    result = robust_accuracy(digits_net, x, y, attack, batch_size=37)
    by_hand = correct(digits_net, x, y) & correct(digits_net, attack(digits_net, x, y), y)
    assert torch.equal(result.robust, by_hand)
    p = by_hand.double().mean().item()
    assert result.accuracy == p
    assert result.stderr == pytest.approx(math.sqrt(p * (1 - p) / len(y)), rel=0.01)
    assert 0 < p < correct(digits_net, x, y).double().mean().item()


def test_a_model_that_is_never_right_has_accuracy_zero(images):
    class Wrong(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * 0 + torch.tensor([0.0, 0.0, 1.0])

    result = robust_accuracy(Wrong(), images, torch.zeros(6, dtype=torch.long), FGSM())
    assert result.accuracy == 0
    assert result.stderr == pytest.approx(1 / 14)
    assert result.interval == pytest.approx((0, 1.96**2 / (6 + 1.96**2)), abs=1e-4)


def test_epsilon_zero_is_clean_accuracy(digits_net, digits):
    x, y = digits.validation.images(), digits.validation.labels
    for attack in (FGSM(epsilon=0), PGD(epsilon=0, steps=2, step_size=0.1)):
        result = robust_accuracy(digits_net, x, y, attack)
        assert torch.equal(result.robust, correct(digits_net, x, y))


def test_useless_gradients_are_counted(images):
    class Flat(nn.Module):
        def forward(self, x):
            return (x.flatten(1)[:, :3] * 0 + torch.tensor([1.0, 0.0, 0.0])).round()

    class NaNGradient(nn.Module):
        def forward(self, x):
            zero = (x.flatten(1)[:, :1] - x.flatten(1)[:, :1]).sqrt()  # slope infinity * 0
            return torch.cat([1 + zero, zero, zero], dim=1)

    y = torch.zeros(6, dtype=torch.long)
    flat = robust_accuracy(Flat(), images, y, FGSM())
    assert (flat.accuracy, flat.zero_gradients) == (1.0, 6)
    nan = robust_accuracy(NaNGradient(), images, y, FGSM())
    assert nan.nonfinite_gradients == 6


def test_nan_logits_are_never_right(images):
    class Silent(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 3), torch.nan)

    assert not correct(Silent(), images, torch.zeros(6, dtype=torch.long)).any()


def test_accuracy_refuses_mismatched_sizes(images):
    with pytest.raises(ValueError, match="expected 6 integers, one for each image, got .* .2,."):
        correct(linear(), images, torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="at least one image"):
        correct(linear(), images[:0], torch.zeros(0, dtype=torch.long))
