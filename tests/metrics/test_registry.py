"""Every metric keeps the same promises; cost is counted by hand."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from scipy.stats import binomtest
from torch import nn
from torch.backends import mha
from torch.nn import functional

from metrics import METRICS, cost
from metrics.robustness.scores import CleanAccuracy
from metrics.susceptibility.scores import PsiRatio
from search_spaces import DepthChannels, Task

FEW = {"steps": 5, "targets": 2}
QUICK = {"apgd-t": FEW, "fab": FEW, "autoattack": {**FEW, "queries": 20}}
"""Settings of those that take thousands of passes."""
every_metric = pytest.mark.parametrize(
    "kind", [partial(METRICS[k], **QUICK.get(k, {})) for k in METRICS], ids=METRICS.keys()
)


@pytest.fixture
def batch(digits):
    return digits.validation.images(slice(40)), digits.validation.labels[:40]


FITS = (METRICS["error-law"], METRICS["logit-differences"])
"""Those that 40 images are too few for."""


@every_metric
def test_scores_are_named_floats_decided_by_the_generator(kind, digits_net, digits, batch):
    metric = kind()
    if kind.func in FITS:
        batch = digits.validation.images(), digits.validation.labels
    a, b = (metric(digits_net, *batch, generator=torch.Generator().manual_seed(3)) for _ in "ab")
    assert tuple(a) == metric.score_names
    assert all(type(v) is float and math.isfinite(v) for v in a.values())
    assert a == b


@every_metric
def test_the_model_is_left_as_found(kind, digits_net, batch):
    digits_net.train()
    before = {k: v.clone() for k, v in digits_net.state_dict().items()}
    kind()(digits_net, *batch)
    assert digits_net.training
    digits_net.eval()
    assert all(torch.equal(before[k], v) for k, v in digits_net.state_dict().items())


@every_metric
def test_a_label_renames_every_score(kind):
    plain, labelled = kind(), kind(label="mine")
    assert all(name.startswith("mine") for name in labelled.score_names)
    assert not set(plain.score_names) & set(labelled.score_names)


@every_metric
def test_limit_is_checked_and_used(kind, digits_net, batch):
    with pytest.raises(ValueError, match="limit >= 1"):
        kind(limit=0)
    x, y = batch
    generators = [torch.Generator().manual_seed(1) for _ in "ab"]
    few = kind(limit=7)(digits_net, x, y, generator=generators[0])
    cut = kind(limit=None)(digits_net, x[:7], y[:7], generator=generators[1])
    assert few == pytest.approx(cut, rel=0, abs=0, nan_ok=True)


def test_an_attack_metric_refuses_bad_settings_when_made():
    with pytest.raises(ValueError, match="8/255"):
        METRICS["pgd"](epsilon=8)
    with pytest.raises(ValueError, match="radii"):
        PsiRatio(radii=())


def test_clean_accuracy_counts(digits_net, batch):
    x, y = batch
    right = (digits_net(x).argmax(1) == y).double().mean().item()
    scores = CleanAccuracy()(digits_net, x, y)
    assert scores["clean_accuracy"] == right
    interval = binomtest(round(40 * right), 40).proportion_ci(0.95, "wilson")
    assert scores["clean_accuracy_low"] == pytest.approx(interval.low)
    assert scores["clean_accuracy_high"] == pytest.approx(interval.high)


@pytest.mark.parametrize("name", ["clean", "pgd", "cascade", "autoattack"])
def test_an_accuracy_of_a_finite_sample_is_never_sure(name):
    """A model that is always right, and one that never is."""

    class Always(nn.Module):
        def forward(self, x):
            return torch.eye(3)[[0]].expand(len(x), 3)

    x = torch.rand(30, 1, 4, 4)
    for label, low, high in ((0, 30 / (30 + 1.96**2), 1), (1, 0, 1.96**2 / (30 + 1.96**2))):
        metric = METRICS[name](**QUICK.get(name, {}))
        scores = metric(Always(), x, torch.full((30,), label))
        assert scores[f"{name}_accuracy"] == 1 - label
        assert scores[f"{name}_accuracy_stderr"] == pytest.approx(1 / 62)
        ends = scores[f"{name}_accuracy_low"], scores[f"{name}_accuracy_high"]
        assert ends == pytest.approx((low, high), abs=1e-4)


def test_a_model_that_never_moves_has_no_psi():
    class Constant(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * 0 + 1

    scores = PsiRatio()(Constant(), torch.rand(4, 1, 4, 4), torch.zeros(4, dtype=torch.long))
    assert math.isnan(scores["psi"])


def test_cost_by_hand():
    space = DepthChannels(depth=(2,), channels=(4,), stem="small")
    architecture = space.architecture({"depth": 2, "channels": 4})
    model = space.build(architecture, Task.plain((3, 8, 8), 5))
    # 3x3 on 8x8, pool to 4x4, 3x3 on 4x4, 1x1 on 4x4, linear
    macs = 64 * 4 * 3 * 9 + 16 * 4 * 4 * 9 + 16 * 4 * 4 + 4 * 5
    assert cost.macs(model, torch.rand(1, 3, 8, 8)) == macs
    assert cost.parameters(model) == 3 * 4 * 9 + 8 + 4 * 4 * 9 + 8 + (16 + 4) + (20 + 5)


class Sequence(nn.Module):
    """An image of 5 rows as a sequence of 5 steps, through any function of ``(1, 5, 8)``."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.flatten(1, 2))


def encoder(layers):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2
        )

    def forward(self, x):
        mask = torch.tensor([[False] * 4 + [True]])
        return self.layers(x, src_key_padding_mask=mask)


class Times(nn.Module):
    def __init__(self, times, layer):
        super().__init__()
        self.times, self.layer = times, layer

    def forward(self, x):
        return self.layer(*[x] * self.times)


class OwnGradient(nn.Module):
    """Its forward goes once along the gradient of a linear layer: forward, backward, forward."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.layer(x).sum(), x)
        return self.layer(x + gradient)


# projections to queries, keys, values and back; scores and their mean over 5 x 5; feed-forward
ATTENTION = 5 * 4 * 8 * 8 + 2 * 5 * 5 * 8
ENCODER = ATTENTION + 5 * 2 * 8 * 16
LAYERS = {
    "one encoder layer": (encoder(1), ENCODER),
    "two encoder layers": (encoder(2), 2 * ENCODER),
    "masked": (Masked(), 2 * ENCODER),
    "decoder": (
        Times(2, nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)),
        ENCODER + ATTENTION,
    ),
    "attention": (Times(3, nn.MultiheadAttention(8, 2, batch_first=True)), ATTENTION),
    # 4 gates, 3 gates, 1; from 8 inputs and 6 hidden states
    "lstm": (nn.LSTM(8, 6, batch_first=True), 5 * 4 * 6 * (8 + 6)),
    "two lstm, both ways": (
        nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True),
        5 * 2 * 4 * 6 * ((8 + 6) + (12 + 6)),
    ),
    "projected lstm": (
        nn.LSTM(8, 6, batch_first=True, proj_size=3),
        5 * (4 * 6 * (8 + 3) + 3 * 6),
    ),
    "gru": (nn.GRU(8, 6, batch_first=True), 5 * 3 * 6 * (8 + 6)),
    "rnn": (nn.RNN(8, 6, batch_first=True), 5 * 6 * (8 + 6)),
    "lstm cell": (nn.Sequential(nn.Flatten(0, 1), nn.LSTMCell(8, 6)), 5 * 4 * 6 * (8 + 6)),
    "own gradient": (OwnGradient(), 3 * 5 * 8 * 8),
}
W = torch.rand(7, 8)
Q, K, V = torch.rand(1, 4, 5, 2), torch.rand(1, 2, 3, 2), torch.rand(1, 2, 3, 6)
FUNCTIONS = {
    "linear": (lambda x: functional.linear(x, W, torch.rand(7)), 5 * 8 * 7),
    "linear of a vector": (lambda x: functional.linear(x[0, 0], W, torch.rand(7)), 8 * 7),
    "conv2d": (lambda x: functional.conv2d(x[None], torch.rand(4, 1, 3, 3)), 3 * 6 * 4 * 9),
    "conv1d": (lambda x: functional.conv1d(x, torch.rand(4, 5, 3)), 6 * 4 * 5 * 3),
    "depthwise": (lambda x: functional.conv1d(x, torch.rand(5, 1, 3), groups=5), 6 * 5 * 3),
    "transposed": (lambda x: functional.conv_transpose1d(x, torch.rand(5, 4, 3)), 8 * 5 * 4 * 3),
    "@": (lambda x: x @ W.T, 5 * 8 * 7),
    "@, broadcast": (lambda x: x @ torch.rand(3, 2, 8, 7), 6 * 5 * 8 * 7),
    "@ a vector": (lambda x: x @ W[0], 5 * 8),
    "a vector @": (lambda x: W[0] @ x[0].T, 5 * 8),
    "mv": (lambda x: torch.mv(x[0], W[0]), 5 * 8),
    "dot": (lambda x: torch.dot(x[0, 0], W[0]), 8),
    "vdot": (lambda x: torch.vdot(x[0, 0], W[0]), 8),
    "bmm": (lambda x: torch.bmm(x, x.mT), 5 * 8 * 5),
    "addmm": (lambda x: torch.addmm(torch.rand(5, 7), x[0], W.T), 5 * 8 * 7),
    "addmv": (lambda x: torch.addmv(torch.rand(5), x[0], W[0], beta=2), 5 * 8),
    "addr": (lambda x: torch.addr(torch.rand(5, 8), x[0, :, 0], W[0]), 5 * 8),
    "addbmm": (
        lambda x: torch.addbmm(torch.rand(5, 7), x.expand(3, 5, 8), W.T.expand(3, 8, 7)),
        3 * 5 * 8 * 7,
    ),
    "baddbmm": (lambda x: torch.baddbmm(torch.rand(1, 5, 5), x, x.mT), 5 * 8 * 5),
    "einsum": (lambda x: torch.einsum("bij,kj->bik", x, W), 5 * 8 * 7),
    "einsum to a number": (lambda x: torch.einsum("bij,bij->", x, x), 5 * 8),
    "tensordot": (lambda x: torch.tensordot(x, W, ([2], [1])), 5 * 8 * 7),
    # for each of 3 outputs x W, then with y
    "bilinear": (
        lambda x: functional.bilinear(x[0], torch.rand(5, 7), torch.rand(3, 8, 7)),
        5 * 3 * (8 * 7 + 7),
    ),
    "attention": (
        lambda x: functional.scaled_dot_product_attention(x, x, x, is_causal=True),
        2 * 5 * 5 * 8,
    ),
    "attention with shared keys": (
        lambda x: functional.scaled_dot_product_attention(Q, K, V, enable_gqa=True),
        4 * 5 * 3 * (2 + 6),
    ),
    "elementwise": (lambda x: (x * x + 1).sum(), 0),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported:UserWarning")
@pytest.mark.parametrize(("layer", "expected"), LAYERS.values(), ids=LAYERS)
def test_layers_by_hand(layer, expected):
    assert cost.macs(Sequence(layer), torch.rand(1, 1, 5, 8)) == expected


@pytest.mark.parametrize(("function", "expected"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions_by_hand(function, expected):
    assert cost.macs(Sequence(function), torch.rand(1, 1, 5, 8)) == expected


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_scripted_layer_hides_nothing():
    layer = torch.jit.script(encoder(1).eval().layers[0])
    assert cost.macs(Sequence(layer), torch.rand(1, 1, 5, 8)) == ENCODER


def test_recurrent_layers_on_a_gpu_count_the_same():
    """cuDNN runs all layers as one operation, given their weights in a list."""
    for name in ("lstm", "two lstm, both ways", "projected lstm", "gru", "rnn"):
        layer, expected = LAYERS[name]
        weights = [tuple(weight.shape) for weight in layer.parameters()]
        assert cost.COUNTED[torch.ops.aten._cudnn_rnn]((1, 5, 8), weights, 4, None) == expected


class Pair(nn.Module):
    def forward(self, x, beside):
        return x


def test_a_model_that_one_image_is_not_enough_for_is_refused():
    models = {"'beside'": Pair(), "boom": nn.Flatten(), "index 1": Sequence(lambda x: x[1])}

    def boom(*_):
        raise KeyError("boom")

    models["boom"].register_forward_hook(boom)
    before = mha.get_fastpath_enabled()
    for why, model in models.items():
        with pytest.raises(ValueError, match=rf"one image \(1, 1, 5, 8\) alone, got .*{why}"):
            cost.macs(model.train(), torch.rand(1, 1, 5, 8))
        assert model.training
    assert mha.get_fastpath_enabled() is before is True


def test_counting_leaves_the_fast_path_as_found():
    mha.set_fastpath_enabled(False)
    try:
        cost.macs(nn.Flatten(), torch.rand(1, 1, 5, 8))
        assert not mha.get_fastpath_enabled()
    finally:
        mha.set_fastpath_enabled(True)


@pytest.mark.parametrize(
    ("name", "settings", "match"),
    [
        ("suspicion", {"queries": 0}, "queries"),
        ("suspicion", {"draws": 0}, "draws"),
        ("suspicion", {"epsilon": 8}, "epsilon"),
        ("min-fgsm", {"limit_epsilon": 2}, "limit_epsilon"),
        ("pgd", {"target": "labels"}, "least-likely"),
        ("cascade", {"attacks": ()}, "attacks"),
        ("square", {"queries": 0}, "queries"),
        ("noise", {"region": "torus"}, "region"),
        ("apgd", {"loss": "mse"}, "loss"),
        ("apgd-t", {"targets": 0}, "targets"),
        ("fab", {"norm": "l1", "epsilon": 1.0}, "norm"),
        ("autoattack", {"version": "rand"}, "standard"),
        ("autoattack", {"queries": 0}, "queries"),
        ("autoattack", {"norm": "linf", "epsilon": 8}, "epsilon"),
    ],
)
def test_settings_are_refused_before_any_training(name, settings, match):
    with pytest.raises(ValueError, match=match):
        METRICS[name](**settings)
