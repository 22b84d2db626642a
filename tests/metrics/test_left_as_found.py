"""Whatever a forward pass, ``eval()`` or ``train()`` does to a model, it is left as found."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from public import EVERY, images, net
from torch import nn
from torch.ao.quantization import get_default_qat_qconfig, prepare_qat
from torch.nn import functional

from metrics.cost import macs
from metrics.left_as_found import evaluating
from metrics.susceptibility import drift, sphere_attack, susceptibility, susceptibility_limit

X, Y = images(), torch.tensor([0, 1, 2, 3, 0, 1])
CALLS = {
    **EVERY,
    "macs": lambda m, x, y: macs(m, x[:1]),
    "psi frozen": lambda m, x, y: susceptibility(m, x, steps=1, batch_norm="frozen"),
    "psi batch": lambda m, x, y: susceptibility(m, x, steps=1, batch_norm="batch"),
    "psi float64": lambda m, x, y: susceptibility(m, x, steps=1, float64=True, limit=True),
    "limit frozen": lambda m, x, y: susceptibility_limit(m, x, batch_norm="frozen"),
    "drift batch": lambda m, x, y: drift(m, x, x, batch_norm="batch"),
    "sphere frozen": lambda m, x, y: sphere_attack(m, x, 0.01, batch_norm="frozen"),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
few_calls = pytest.mark.parametrize(
    "call", [CALLS["robust_accuracy"], CALLS["psi frozen"]], ids=["robust_accuracy", "psi frozen"]
)


def state(model, *hidden):
    """Return what a model holds: whether each thing is the same one, and what it says."""
    found = []
    for module in (*model.modules(), *hidden):
        held = vars(module)
        for name, value in held.items():
            entries = value.items() if isinstance(value, dict) else [(name, value)]
            found += [(id(module), name, key, id(entry)) for key, entry in entries]
        found.append((id(module), module.training))
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None:
                gradient = tensor.grad if tensor.is_leaf else None
                found.append((said(tensor), tensor.requires_grad, id(gradient), said(gradient)))
    return found


def said(tensor):
    if tensor is None:
        return None
    plain = tensor.detach()
    if plain.layout is not torch.strided:
        plain = plain.to_dense()
    if plain.is_quantized:
        plain = plain.int_repr()
    layout = tensor.stride() if tensor.layout is torch.strided else None
    return tensor.dtype, tuple(tensor.shape), layout, repr(plain.tolist())


class Meddler(nn.Module):
    """Changes itself in every forward pass, and returns what it was given."""

    def __init__(self, way=None):
        super().__init__()
        self.ways = list(WAYS.values()) if way is None else [way]
        self.count, self.cast = 0, nn.Linear(1, 1)
        self.norm, self.frozen = nn.BatchNorm1d(1), nn.Parameter(torch.ones(1), False)
        self.weight = nn.Parameter(torch.tensor([1.0, torch.nan, -0.0]))
        self.weight.grad = torch.ones(3)
        for name in ("buffer", "other", "lost", "grown"):
            self.register_buffer(name, torch.tensor([1.0, 2.0]))

    def forward(self, x):
        with torch.no_grad():
            for way in self.ways:
                way(self)
        return x


def buffers_in_a_new_order(m):
    m._buffers["buffer"] = m._buffers.pop("buffer")


def train_the_norm(m):
    m.norm.train()(torch.arange(3.0)[:, None].to(m.norm.weight))


def new_data(m):
    m.weight.data = torch.zeros(5)


WAYS = {
    "a buffer in place": lambda m: m.buffer.add_(1),
    "a buffer by .data": lambda m: m.buffer.data.add_(1),
    "a buffer by assignment": lambda m: setattr(m, "other", m.other + 1),
    "a buffer that is deleted": lambda m: m._buffers.pop("lost", None),
    "a buffer that is new": lambda m: m.register_buffer("new", torch.zeros(1)),
    "a buffer that grows": lambda m: m.grown.resize_(len(m.grown) + 1),
    "a buffer moved to the end": buffers_in_a_new_order,
    "a parameter by .data": lambda m: m.frozen.data.add_(1),
    "a parameter with other data": new_data,
    "a parameter by assignment": lambda m: setattr(m, "frozen", nn.Parameter(torch.zeros(2))),
    "requires_grad": lambda m: m.weight.requires_grad_(False),
    "a gradient": lambda m: setattr(m.cast.bias, "grad", torch.ones_like(m.cast.bias)),
    "a gradient in place": lambda m: m.weight.grad is None or m.weight.grad.add_(1),
    "a gradient that is dropped": lambda m: setattr(m.weight, "grad", None),
    "a plain attribute": lambda m: setattr(m, "count", m.count + 1),
    "a new attribute": lambda m: setattr(m, "kept", torch.zeros(1)),
    "a new module": lambda m: m.add_module("extra", nn.Linear(1, 1)),
    "a hook": lambda m: m.cast.register_forward_hook(lambda *_: None),
    "another type": lambda m: m.cast.double(),
    "a batch norm told to train": train_the_norm,
    "another mode": lambda m: m.train(),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@few_calls
def test_what_a_forward_changes_comes_back(call, way):
    model = nn.Sequential(net(), Meddler(way)).train()
    before = state(model)
    call(model, X, Y)
    assert state(model) == before


@pytest.mark.parametrize("mode", ["eval", "mixed"])
@every_call
def test_every_function_leaves_a_model_as_found(call, mode):
    model = nn.Sequential(net(), nn.Dropout(0.5), Meddler()).train(mode != "eval")
    model[0][1].train(mode == "eval")
    model[0][0].weight.requires_grad_(False)
    model[0][5].weight.grad = torch.ones_like(model[0][5].weight)
    x, y, before = X.clone(), Y.clone(), state(model)
    call(model, x, y)
    assert state(model) == before
    assert torch.equal(x, X)
    assert torch.equal(y, Y)


@every_call
def test_also_after_an_exception(call):
    class Raises(Meddler):
        def forward(self, x):
            super().forward(x)
            raise KeyError("midway")

    model = nn.Sequential(net(), Raises()).train()
    before = state(model)
    with pytest.raises((KeyError, ValueError), match="midway"):
        call(model, X, Y)
    assert state(model) == before


class LowRank(nn.Linear):
    """Adds a product of two small matrices to its weight in ``eval()``, takes it off in train."""

    def __init__(self):
        super().__init__(108, 4)
        self.down, self.up = nn.Parameter(torch.randn(2, 108)), nn.Parameter(torch.randn(4, 2))
        self.merged = False

    def train(self, mode=True):
        super().train(mode)
        if mode == self.merged:
            self.weight.data += (-1 if mode else 1) * (self.up @ self.down).data
            self.merged = not mode
        return self

    def forward(self, x):
        plain = functional.linear(x, self.weight, self.bias)
        return plain if self.merged else plain + x @ self.down.T @ self.up.T


class Caching(nn.Linear):
    """Normalises its weight once in ``eval()``, anew at every step of training."""

    def __init__(self):
        super().__init__(108, 4)
        self.cache = None

    def train(self, mode=True):
        super().train(mode)
        self.cache = None if mode else functional.normalize(self.weight.detach())
        return self

    def forward(self, x):
        return x @ (functional.normalize(self.weight) if self.cache is None else self.cache).T


@pytest.mark.parametrize(
    ("name", "layer", "mode"),
    [
        *((name, LowRank, True) for name in CALLS),
        *((name, Caching, True) for name in EVERY),
        ("call", LowRank, False),
        ("call", Caching, False),
    ],
)
def test_a_train_that_does_more(name, layer, mode):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), layer()).train(mode)
    before = state(model)
    CALLS[name](model, X, Y)
    assert state(model) == before


def test_a_net_that_caches_follows_its_weights_in_training():
    """The next training step must not meet what eval() kept."""
    model = nn.Sequential(nn.Flatten(), Caching()).train()
    EVERY["call"](model, X, Y)
    model[1].weight.data.neg_()
    expected = X.flatten(1) @ functional.normalize(model[1].weight).T
    assert torch.equal(model(X), expected)


class Hiding(nn.Module):
    """Holds modules where ``eval()`` does not reach them."""

    def __init__(self, kind):
        super().__init__()
        self.net, parts = net(), [nn.Dropout(0.5), nn.BatchNorm2d(3)]
        self.parts = {"a": parts[0], "b": parts[1]} if kind is dict else kind(parts)

    def hidden(self):
        return [*(self.parts.values() if isinstance(self.parts, dict) else self.parts)]

    def forward(self, x):
        self.seen = {module.training for module in self.hidden()}
        for module in self.hidden():
            x = module(x)
        return self.net(x)


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, list) for name in EVERY), ("call", tuple), ("call", dict)]
)
def test_modules_in_lists_are_in_eval_too(name, kind):
    """Dropout is off, and the hidden batch norm's statistics stay."""
    model = Hiding(kind).train()
    modes = set()
    handle = model.net.register_forward_pre_hook(lambda *_: modes.update(model.seen))
    model.seen = None
    before = state(model, *model.hidden())
    EVERY[name](model, X, Y)
    assert modes == {False}
    assert state(model, *model.hidden()) == before
    handle.remove()


class Untrainable(nn.Sequential):
    def train(self, mode=True):
        return self


@every_call
def test_a_model_that_stays_in_training_is_refused(call):
    model = Untrainable(net().train())
    before = state(model)
    with pytest.raises(ValueError, match="expected a module that eval"):
        call(model, X, Y)
    assert state(model) == before


@few_calls
def test_a_part_that_stays_in_eval_is_none_of_our_business(call):
    part = Untrainable(nn.Identity())
    part.training = False
    model = nn.Sequential(part, net()).train()
    call(model, X, Y)
    assert not part.training
    assert model.training


BUFFERS = {
    "coo": lambda v: (v * torch.eye(3)).to_sparse(),
    "csr": lambda v: (v * torch.eye(3)).to_sparse_csr(),
    "quantised": lambda v: torch.quantize_per_tensor(torch.full((3,), v), 0.1, 0, torch.quint8),
    "bool": lambda v: torch.full((3,), v > 1),
    "complex": lambda v: torch.full((3,), v, dtype=torch.complex64),
    "conjugate": lambda v: torch.full((3,), v * 1j, dtype=torch.complex64).conj(),
    "negative": lambda v: torch._neg_view(torch.full((3,), v)),
    "int64": lambda v: torch.tensor(2**62 + int(v)),
    "float8": lambda v: torch.full((3,), v).to(torch.float8_e4m3fn),
    "bfloat16": lambda v: torch.full((3,), v).bfloat16(),
    "transposed": lambda v: (v * torch.arange(6.0)).view(2, 3).T,
    "channels_last": lambda v: torch.full((1, 3, 2, 2), v).to(memory_format=torch.channels_last),
    "expanded": lambda v: torch.full((1,), v).expand(3),
    "sliced": lambda v: (v * torch.arange(6.0))[::2],
    "empty": lambda v: torch.empty(0),
    "NaN": lambda v: torch.tensor([torch.nan, v]),
}


class Holding(nn.Module):
    def __init__(self, buffer, other=None):
        super().__init__()
        self.net, self.other = net(), other
        self.register_buffer("buffer", buffer)

    def forward(self, x):
        if self.other is not None:
            self.buffer.data = self.other
        return self.net(x)


@pytest.mark.filterwarnings("ignore:Sparse CSR|torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("other", [False, True], ids=["kept", "changed"])
@pytest.mark.parametrize("make", BUFFERS.values(), ids=BUFFERS.keys())
def test_buffers_of_any_kind(make, other):
    model = Holding(make(1.0), make(2.0) if other else None)
    before = state(model)
    CALLS["robust_accuracy"](model, X, Y)
    assert state(model) == before


class Changing(nn.Module):
    """Changes a buffer where it lies: its values, or where in it they are."""

    def __init__(self, buffer, change):
        super().__init__()
        self.net, self.change = net(), change
        self.register_buffer("buffer", buffer)

    def forward(self, x):
        with torch.no_grad():
            self.change(self.buffer)
        return self.net(x)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("kind", ["coo", "csr"])
@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.mul_(2),
        lambda v: v.resize_as_sparse_(full(v)).copy_(full(v)),
    ],
    ids=["values", "places"],
)
def test_sparse_buffers_that_change_where_they_lie(kind, change):
    model = Changing(BUFFERS[kind](1.0), change)
    before = state(model)
    CALLS["robust_accuracy"](model, X, Y)
    assert state(model) == before


def full(like):
    return torch.ones(3, 3).to_sparse(layout=like.layout)


class Doubling(nn.Module):
    def __init__(self, buffer):
        super().__init__()
        self.net = net()
        self.register_buffer("buffer", buffer)

    def forward(self, x):
        self.buffer.mul_(2)
        return self.net(x)


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["coo", "csr", "bfloat16", "transposed", "sliced", "empty", "NaN"])
def test_buffers_of_a_traced_module(kind):
    model = torch.jit.trace(Doubling(BUFFERS[kind](1.0)).eval(), X, check_trace=False)
    before = {name: said(value) for name, value in model.named_buffers()}
    CALLS["robust_accuracy"](model, X, Y)
    assert {name: said(value) for name, value in model.named_buffers()} == before


def prepared(version):
    """Return a net with observers, which resize their buffers in their first forward pass."""

    class Quantised(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter, self.leave = torch.ao.quantization.QuantStub(), nn.Identity()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)

        def forward(self, x):
            return self.leave(self.head(self.conv(self.enter(x)).mean((2, 3))))

    model = Quantised()
    model.qconfig = get_default_qat_qconfig("fbgemm", version=version)
    return prepare_qat(model.train(), inplace=True)


@pytest.mark.filterwarnings("ignore:Please use quant_min:UserWarning")
@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("warm", [False, True])
@few_calls
def test_observers_of_quantisation(call, warm, version):
    model = prepared(version)
    if warm:
        model(X)
    before = state(model)
    call(model, X, Y)
    assert state(model) == before


def test_shared_modules_and_tied_parameters():
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
    second.weight = first.weight
    model = nn.Sequential(first, nn.ReLU(), second, first, Meddler(), net()).train()
    before = state(model)
    for call in CALLS.values():
        call(model, X, Y)
        assert model[0] is model[3]
        assert model[0].weight is model[2].weight
        assert state(model) == before


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.count += 1
        return self.net(x)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")
@pytest.mark.parametrize("name", ["call", "robust_accuracy", "susceptibility", "robustness_radius"])
def test_buffers_and_modes_of_torchscript(name):
    model = torch.jit.script(Counting().train())
    model(X)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    EVERY[name](model, X, Y)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.count.item() == 1


@pytest.mark.parametrize("mode", [True, False])
@every_call
def test_a_pending_backward_pass_is_not_disturbed(call, mode):
    """A call between forward and backward, as in adversarial training."""
    model, gradients = net().train(mode), []
    for between in (lambda *_: None, call):
        model.zero_grad()
        model[1].reset_running_stats()
        loss = model(X).square().sum()
        between(model, X, Y)
        loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_train_is_called_where_it_is_overridden():
    """What a module notes in an object of its own, only its own train(mode) takes back."""

    class Merging(nn.Linear):
        def __init__(self):
            super().__init__(4, 4)
            self.state = SimpleNamespace(merged=False)

        def train(self, mode=True):
            super().train(mode)
            self.state.merged = not mode
            return self

    model = nn.Sequential(nn.Flatten(), Merging())
    with evaluating(model):
        assert model[1].state.merged
    assert not model[1].state.merged
