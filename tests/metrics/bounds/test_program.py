"""A model read into operations: all that is known is read right, all else refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from metrics.bounds.activations import ACTIVATIONS
from metrics.bounds.operations import Activation, Pool
from metrics.bounds.program import read
from metrics.precision import full_float32


class Calls(nn.Module):
    """A model that is one function of the images, with modules if need be."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        return self.function(self, x)


def flat(x):
    return x.flatten(1)


KNOWN = {
    "conv by name": Calls(lambda m, x: flat(m.c(x)), c=nn.Conv2d(2, 3, 3, padding="same")),
    "even conv by name": Calls(
        lambda m, x: flat(m.c(x)), c=nn.Conv2d(2, 3, (2, 4), padding="same")
    ),
    "reflected": Calls(
        lambda m, x: flat(m.c(x)), c=nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect")
    ),
    "circular": Calls(
        lambda m, x: flat(m.c(x)), c=nn.Conv2d(2, 3, 3, padding=2, padding_mode="circular")
    ),
    "batch norm": Calls(lambda m, x: flat(m.b(x)), b=nn.BatchNorm2d(2)),
    "batch norm without weights": Calls(
        lambda m, x: flat(m.b(x)), b=nn.BatchNorm2d(2, affine=False)
    ),
    "normalised weights": Calls(
        lambda m, x: m.w(flat(x)), w=nn.utils.parametrizations.weight_norm(nn.Linear(72, 3))
    ),
    "L3 of what is positive": Calls(
        lambda m, x: flat(functional.lp_pool2d(x.abs(), 3.0, (2, 3), ceil_mode=True))
    ),
    "L1": Calls(lambda m, x: flat(functional.lp_pool2d(x, 1.0, 2, 1))),
    "mean over pixels": Calls(lambda m, x: x.mean((2, 3))),
    "mean over channels": Calls(lambda m, x: flat(x.mean(1, keepdim=True))),
    "largest over a row": Calls(lambda m, x: flat(x.amax(-1))),
    "adaptive max": Calls(lambda m, x: flat(functional.adaptive_max_pool2d(x, (2, 3)))),
    "chunks": Calls(
        lambda m, x: flat(torch.cat([c * (i + 1) for i, c in enumerate(x.chunk(2, 1))], 1))
    ),
    "split": Calls(lambda m, x: flat(x.split([1, 5], 2)[1])),
    "sum over pixels": Calls(lambda m, x: x.sum((2, 3))),
    "one row": Calls(lambda m, x: flat(x[:, :, 2])),
    "rolled": Calls(lambda m, x: flat(x.roll(2, 3))),
    "slices": Calls(lambda m, x: flat(x[:, :, 1:, ::2])),
    "moved": Calls(lambda m, x: x.permute(0, 2, 3, 1).transpose(1, 2).reshape(len(x), -1)),
    "squeezed": Calls(lambda m, x: flat(x.unsqueeze(1).squeeze(1))),
    "repeated": Calls(lambda m, x: flat(x[:, :1] + x)),
    "minus": Calls(lambda m, x: flat(1 - x - 0.5 * x)),
    "by a constant": Calls(lambda m, x: flat(-x / torch.tensor([[[2.0]], [[4.0]]]))),
    "zeros beside": Calls(lambda m, x: torch.cat([torch.zeros_like(flat(x)), flat(x)], 1)),
    "in place": Calls(lambda m, x: flat(m.c(x).relu_().add_(1.0)), c=nn.Conv2d(2, 2, 1)),
    "in place, then read again": Calls(lambda m, x: _written_then_read(x)),
    "matrix product": Calls(lambda m, x: flat(x) @ torch.ones(72, 3)),
    "dropout": Calls(lambda m, x: m.d(flat(x)), d=nn.Dropout(0.5)),
    "dropout in place, on a view": Calls(lambda m, x: m.d(x.mean((2, 3))), d=nn.Dropout(0.5, True)),
    "softmax": Calls(lambda m, x: flat(x).softmax(1)),
    "padded with a value": Calls(lambda m, x: flat(functional.pad(x, (1, 2, 0, 1), value=0.5))),
    "a part that is not used": Calls(lambda m, x: (x.sort(), flat(x))[1]),
}


def _written_then_read(x):
    y = x * 2
    z = y.relu_()
    return flat(z + y)  # y was written to


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known_is_read_right(name):
    model = KNOWN[name].eval()
    images = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    program = read(model, images)
    last = len(program.steps) - 1
    found = program.evaluate(images.double(), [last])[last]
    torch.testing.assert_close(found, model(images).double(), atol=1e-5, rtol=1e-5)
    for number, step in enumerate(program.steps):
        assert program.evaluate(images.double(), [number])[number].shape[1:] == step.shape


UNKNOWN = {
    "aten.group_norm": Calls(lambda m, x: flat(m.n(x)), n=nn.GroupNorm(1, 2)),
    "statistics of the batch": Calls(
        lambda m, x: flat(m.n(x)), n=nn.BatchNorm2d(2, track_running_stats=False)
    ),
    "aten.mul of two": Calls(lambda m, x: flat(x * x)),
    "aten.reciprocal": Calls(lambda m, x: flat(1 / (x + 2))),
    "softplus with a threshold of 2": Calls(lambda m, x: flat(functional.softplus(x, 1.0, 2.0))),
    "aten.mean over the images": Calls(lambda m, x: flat(x - x.mean(0, keepdim=True))),
    "aten.cat along the batch": Calls(lambda m, x: flat(torch.cat([x, x])[: len(x)])),
    "aten.reshape over the images of a batch": Calls(lambda m, x: x.reshape(2, -1)[:, :9]),
    "aten.permute of the batch": Calls(lambda m, x: x.transpose(0, 1).reshape(len(x), -1)),
    "L_3 pool of values": Calls(lambda m, x: flat(functional.lp_pool2d(x, 3.0, 2))),
    "aten.relu_ on a view": Calls(lambda m, x: flat((2 * x)[:, :1].relu_())),
    "parameters that depend": Calls(lambda m, x: functional.linear(flat(x), flat(x))),
    "softmax over other values": Calls(lambda m, x: flat(x.softmax(1))),
    "aten.max_pool2d_with_indices": Calls(
        lambda m, x: flat(functional.max_pool2d(x, 2, return_indices=True)[1].float())
    ),
    "do not depend on the images": Calls(lambda m, x: torch.zeros(len(x), 3)),
    "torch.export can read": Calls(lambda m, x: flat(x) if x.sum() > 0 else flat(-x)),
    "float32 or float64": nn.Sequential(nn.Flatten(), nn.Linear(72, 2)).bfloat16(),
}


@pytest.mark.parametrize("reason", UNKNOWN)
def test_what_is_not_known_is_refused_by_name(reason):
    model = UNKNOWN[reason].eval()
    images = torch.rand(4, 2, 6, 6)
    if reason != "statistics of the batch":
        images = images.to(next(model.parameters(), images))
    with pytest.raises(ValueError, match=reason) as raised:
        read(model, images)
    assert str(raised.value).startswith("bounds: ")
    assert "\n" not in str(raised.value)


def test_the_module_of_an_unknown_layer_is_named():
    body = nn.Sequential(nn.Conv2d(2, 2, 3), nn.InstanceNorm2d(2), nn.Flatten())
    with pytest.raises(ValueError, match=r"aten.instance_norm \(1\)"):
        read(body.eval(), torch.rand(2, 2, 6, 6))


def test_a_program_that_answers_otherwise_is_refused(monkeypatch):
    from metrics.bounds.reading import table

    wrong = dict(table.READERS)
    wrong["relu"] = wrong["abs"]
    monkeypatch.setattr("metrics.bounds.program.READERS", wrong)
    with pytest.raises(ValueError, match="expected the operations read off the model"):
        read(nn.Sequential(nn.Flatten(), nn.Linear(72, 9), nn.ReLU()), torch.rand(2, 2, 6, 6))


def test_hooks_are_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 2))
    model[1].register_forward_hook(lambda module, inputs, output: 2 * output)
    with pytest.raises(ValueError, match="without forward hooks"):
        read(model, torch.rand(2, 2, 6, 6))


def settings_of_precision():
    backends = torch.backends
    parts = (backends, backends.cudnn, backends.cudnn.conv, backends.cudnn.rnn)
    return [part.fp32_precision for part in parts]


def test_precision_is_as_it_was():
    """Also where torch's exporter could not ask for it: inside of full float32."""
    model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Flatten())
    outside, enabled = settings_of_precision(), torch.backends.cudnn.enabled
    for _ in range(2):
        with full_float32():
            inside = settings_of_precision()
            read(model, torch.rand(2, 2, 6, 6))
            assert settings_of_precision() == inside == ["ieee"] * 4
        assert settings_of_precision() == outside
        read(model, torch.rand(2, 2, 6, 6))
        assert settings_of_precision() == outside
        assert torch.backends.cudnn.enabled == enabled
        torch.export.export(model, (torch.rand(2, 2, 6, 6),), strict=False)  # still works


def test_cuts_are_where_every_way_goes_through():
    body = nn.Conv2d(2, 2, 3, padding=1)
    model = Calls(
        lambda m, x: m.head(flat(m.body(x).relu() + x).relu()), body=body, head=nn.Linear(72, 3)
    )
    program = read(model, torch.rand(2, 2, 6, 6))
    kinds = [type(program.steps[i].operation).__name__ for i in program.cuts()]
    assert kinds == ["NoneType", "Sum", "Rearrangement", "Activation", "Dense"]


SETTINGS = {
    "leaky_relu": (0.3,),
    "hardtanh": (-1.0, 2.0),
    "clamp": (-0.5, None),
    "clamp_min": (-0.5,),
    "clamp_max": (0.5,),
    "softplus": (3.0,),
    "elu": (2.0,),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_and_curvatures_are_suprema(name):
    """Finite differences on a fine grid come close to them, and never above."""
    made: Activation = ACTIVATIONS[name](*SETTINGS.get(name, ()))
    z = torch.linspace(-12, 12, 480_001, dtype=torch.float64)
    values = made.function(z)
    step = float(z[1] - z[0])
    slopes = values.diff() / step
    assert 0.999 * made.slope <= float(slopes.abs().max()) <= made.slope * (1 + 1e-9)
    assert not made.nonnegative or float(values.min()) >= 0
    assert not made.keeps_sign or float(made.function(z[z >= 0]).min()) >= 0
    if made.curvature is not None:
        bends = float((values.diff(n=2) / step**2).abs().max())
        assert 0.999 * made.curvature <= bends <= made.curvature * 1.001
        middle = (z[1:] + z[:-1]) / 2
        torch.testing.assert_close(made.derivative(middle), slopes, atol=1e-6, rtol=1e-6)


def test_every_activation_of_torch_is_read():
    modules = (nn.ReLU6(), nn.SiLU(), nn.Mish(), nn.SELU(), nn.CELU(0.5), nn.Hardswish(),
               nn.Hardsigmoid(), nn.LogSigmoid(), nn.GELU(), nn.GELU("tanh"))  # fmt: skip
    model = nn.Sequential(*modules, nn.Flatten()).eval()
    program = read(model, torch.randn(2, 2, 6, 6))
    assert sum(isinstance(s.operation, Activation) for s in program.steps) == len(modules)


def test_windows_are_those_of_torch():
    """Each window's largest value is what torch's pool says, for odd strides and paddings."""
    images = torch.randn(3, 2, 9, 8, generator=torch.Generator().manual_seed(0))
    for pool in (nn.MaxPool2d(3, 2, 1), nn.MaxPool2d((2, 3), (3, 1), (1, 0), ceil_mode=True),
                 nn.MaxPool2d(2, 2, dilation=2), nn.AdaptiveMaxPool2d((4, 3))):  # fmt: skip
        step = read(nn.Sequential(pool, nn.Flatten()), images).steps[1]
        assert isinstance(step.operation, Pool)
        by_hand = torch.stack(
            [
                torch.stack(
                    [
                        images[:, :, list(r)][..., list(c)].amax((2, 3))
                        for c in step.operation.columns
                    ],
                    2,
                )
                for r in step.operation.rows
            ],
            2,
        )
        assert torch.equal(by_hand, pool(images))
