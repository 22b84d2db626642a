"""The fake CUDA device: the CPU's numbers, CUDA's refusals, a count of what waits."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from fake_cuda import fake_cuda
from torch import nn
from torch.nn import functional

FACTORIES = {
    "arange": lambda **on: torch.arange(3, **on),
    "empty": lambda **on: torch.empty(2, 3, **on).zero_(),
    "eye": lambda **on: torch.eye(3, **on),
    "full": lambda **on: torch.full((2,), 7.0, **on),
    "linspace": lambda **on: torch.linspace(0, 1, 5, **on),
    "ones": lambda **on: torch.ones(2, dtype=torch.bool, **on),
    "tensor": lambda **on: torch.tensor([[1, 2]], **on),
    "zeros": lambda **on: torch.zeros(2, requires_grad=True, **on),
    "as_tensor": lambda **on: torch.as_tensor(torch.ones(2), **on),
    "ones_like": lambda **on: torch.ones_like(torch.zeros(2), **on),
    "new_full": lambda **on: torch.zeros(2).new_full((3,), 2.0, **on),
    "rand": lambda **on: torch.rand(2, 3, **on),
    "randint": lambda **on: torch.randint(2**62, (), **on),
    "randn": lambda **on: torch.randn((2, 3), dtype=torch.float64, **on),
    "randperm": lambda **on: torch.randperm(9, **on),
    "rand_like": lambda **on: torch.rand_like(torch.zeros(2), **on),
}
LIKE = {
    "full_like": lambda x: torch.full_like(x, 3),
    "new_empty": lambda x: x.new_empty(6).as_strided((2, 3), (1, 2)).copy_(x),
    "new_tensor": lambda x: x.new_tensor([1.0]),
    "new_zeros": lambda x: x.new_zeros(2),
    "zeros_like": lambda x: torch.zeros_like(x, dtype=torch.long),
}
# What CUDA refuses, and takes, of tensors (2, 3) on the GPU and on the CPU.
REFUSED = {
    "a sum": lambda gpu, cpu: gpu + cpu,
    "a CPU tensor times one GPU number": lambda gpu, cpu: cpu * gpu.sum(),
    "one CPU number changed by a GPU one": lambda gpu, cpu: cpu.sum().add_(gpu.sum()),
    "where": lambda gpu, cpu: torch.where(gpu > 0, gpu, cpu),
    "where, by a CPU mask": lambda gpu, cpu: torch.where(cpu > 0, gpu, 0.0),
    "masked_fill": lambda gpu, cpu: gpu.masked_fill(cpu > 0, 1.0),
    "cat": lambda gpu, cpu: torch.cat([gpu, cpu]),
    "stack": lambda gpu, cpu: torch.stack([gpu.sum(), cpu.sum()]),
    "matmul": lambda gpu, cpu: gpu @ cpu.T,
    "gather": lambda gpu, cpu: gpu.gather(1, cpu.long()),
    "equal": lambda gpu, cpu: torch.equal(gpu, cpu),
    "a loss": lambda gpu, cpu: functional.cross_entropy(gpu, torch.tensor([0, 1])),
    "a layer": lambda gpu, cpu: nn.Linear(3, 1)(gpu),
    "a CPU tensor at GPU indices": lambda gpu, cpu: cpu[gpu[:, 0].long()],
    "a CPU tensor under a GPU mask": lambda gpu, cpu: cpu[gpu > 0],
    "a CPU tensor written at GPU indices": lambda gpu, cpu: cpu.__setitem__(gpu[:, 0].long(), 1.0),
    "CPU values at GPU indices": lambda gpu, cpu: gpu.__setitem__(gpu[:, 0].long(), cpu),
    "a CPU generator": lambda gpu, cpu: torch.rand(2, generator=torch.Generator(), device="cuda"),
    "a GPU generator": lambda gpu, cpu: torch.rand(2, generator=torch.Generator("cuda")),
    "a CPU generator, in place": lambda gpu, cpu: gpu.uniform_(generator=torch.Generator()),
    "a GPU generator, in place": lambda gpu, cpu: cpu.uniform_(generator=torch.Generator("cuda")),
    "numpy": lambda gpu, cpu: gpu.numpy(),
    "asarray": lambda gpu, cpu: np.asarray(gpu),
}
TAKEN = {
    "one CPU number": lambda gpu, cpu: gpu + cpu.sum() * 2,
    "where": lambda gpu, cpu: torch.where(gpu > 1, cpu.sum(), -1.0),
    "CPU indices": lambda gpu, cpu: gpu[torch.tensor([1, 0])],
    "a CPU mask": lambda gpu, cpu: gpu[cpu > 1],
    "a copy": lambda gpu, cpu: gpu.copy_(cpu),
    "a CPU slice written": lambda gpu, cpu: (gpu[1:].copy_(cpu[:1]), gpu)[1],
    "a number at GPU indices": lambda gpu, cpu: gpu.index_fill_(0, gpu[0, :1].long(), 1.0),
    "one CPU number there": lambda gpu, cpu: gpu.index_put_((gpu[0, :1].long(),), cpu[0, 1]),
}
# What waits of a tensor (2, 3) of 0 ... 5, and how often; of the last ones nothing does.
COUNTED = [
    (lambda x: x.nonzero(), {"nonzero": 1}),
    (lambda x: torch.where(x > 0), {"nonzero": 1}),
    (lambda x: x[x > 0], {"mask": 1}),
    (lambda x: x.__setitem__(x > 0, x[x > 0]), {"mask": 2}),
    (lambda x: torch.autograd.grad(x.requires_grad_()[x > 0].sum(), x), {"mask": 2}),
    (lambda x: x.sum().item(), {"item": 1}),
    (lambda x: (float(x.sum()), int(x.sum()), bool(x.any())), {"item": 3}),
    (lambda x: x[x[0, 1].long()], {"item": 1}),
    (lambda x: torch.allclose(x, x), {"allclose": 1}),
    (lambda x: torch.equal(x, x), {"equal": 1}),
    (lambda x: x.tolist(), {"tolist": 1}),
    (lambda x: (x.cpu(), x.to("cpu"), torch.zeros(2, 3).copy_(x)), {"cpu": 3}),
    (lambda x: x[0].repeat_interleave(x[1].long()), {"repeat_interleave": 1}),
    (lambda x: x.masked_select(x > 2), {"masked_select": 1}),
    (lambda x: (x.unique(), x.unique(dim=0), x[0].unique_consecutive()), {"unique": 3}),
    (lambda x: torch.linalg.eigvalsh(x @ x.T), {"eigh": 1}),
    (lambda x: torch.cuda.synchronize(), {"synchronize": 1}),
    (lambda x: x[0].repeat_interleave(x[1].long(), output_size=12), {}),
    (lambda x: x[0].repeat_interleave(2), {}),
    (lambda x: x.__setitem__(x > 0, 1.0), {}),
    (lambda x: x[x[:, 0].long().clamp_max(1)], {}),
    (lambda x: x[:, 1:].topk(2).values.cumsum(1).argmax(dim=1), {}),
    (lambda x: torch.autograd.grad(x.requires_grad_().square().sum(), x), {}),
    (lambda x: torch.rand(3, device=x.device) < 0.5, {}),
]


@pytest.fixture
def gpu():
    with fake_cuda() as gpu:
        yield gpu


@pytest.fixture(
    params=[
        "fake",
        pytest.param(
            "real",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
            ],
        ),
    ]
)
def either(request):
    """Run on the fake device, and where there is one on CUDA itself: both must agree."""
    if request.param == "fake":
        request.getfixturevalue("gpu")


def numbers():
    return torch.arange(6.0).view(2, 3)


@pytest.mark.parametrize("name", FACTORIES)
def test_what_a_factory_makes_is_on_the_device_it_names(gpu, name):
    here, there = [], []
    for found, device in ((here, "cpu"), (there, "cuda")):
        torch.manual_seed(0)
        found.append(FACTORIES[name](device=device))
        found.append(FACTORIES[name](device=device))
    assert {v.device for v in here} == {torch.device("cpu")}
    assert {v.device for v in there} == {torch.device("cuda:0")}
    for one, other in zip(here, there, strict=True):
        assert other.is_cuda != one.is_cuda
        assert (one.dtype, one.requires_grad) == (other.dtype, other.requires_grad)
        assert torch.equal(one, other.cpu())


def test_devices_that_are_none_of_its_business(gpu):
    assert torch.zeros(2, device="meta").is_meta
    assert torch.zeros(2).to("meta").is_meta
    with torch.device("meta"):
        assert nn.Linear(2, 1).weight.is_meta


@pytest.mark.parametrize("name", LIKE)
def test_what_is_made_like_a_tensor_is_where_that_is(gpu, name):
    made, expected = LIKE[name](numbers().to("cuda")), LIKE[name](numbers())
    assert made.device.type == "cuda"
    assert (made.dtype, made.stride()) == (expected.dtype, expected.stride())
    assert torch.equal(made.cpu(), expected)


def test_like_a_tensor_but_elsewhere(gpu):
    x = numbers().to("cuda")
    assert torch.zeros_like(x, device="cpu").device.type == "cpu"
    assert torch.as_tensor(x, device="cpu").device.type == "cpu"
    assert gpu.syncs == {"cpu": 1}


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses_what_cuda_refuses(either, name):
    x = numbers()
    with pytest.raises((RuntimeError, TypeError), match=r"(?i)device|cpu|cuda"):
        REFUSED[name](x.to("cuda"), x)


@pytest.mark.parametrize("name", TAKEN)
def test_it_takes_what_cuda_takes(either, name):
    x = numbers()
    found, expected = (TAKEN[name](v, x) for v in (x.to("cuda"), x.clone()))
    assert found.device.type == "cuda"
    assert torch.equal(found.cpu(), expected)


def test_a_hidden_transfer_of_every_element_is_refused(gpu):
    with pytest.raises(RuntimeError, match="expected numbers, got tensors on cuda:0"):
        torch.tensor([v for v in numbers().to("cuda")[0]])


@pytest.mark.parametrize(("function", "expected"), COUNTED)
def test_it_counts_what_waits(gpu, function, expected):
    function(numbers().to("cuda"))
    assert gpu.syncs == expected


def test_moving_takes_type_and_layout_along_and_leaves_the_original(gpu):
    x = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    y = x.to("cuda", torch.float64)
    assert (y.dtype, y.stride(), y.get_device()) == (torch.float64, x.stride(), 0)
    assert x.to(y).dtype == torch.float64
    assert x.to(y).is_cuda
    assert y.to(x).device == x.device
    assert y.to(torch.half).is_cuda
    assert y.to("cuda") is y
    y.zero_()
    assert x.any()


def test_gradients_are_the_cpus_also_across_a_move(gpu):
    weights = torch.rand(3, 3, requires_grad=True)
    found = []
    for device in ("cpu", "cuda"):
        value = (numbers().to(device) @ weights.to(device)).sigmoid().square().sum()
        found.append(torch.autograd.grad(value, weights)[0])
    assert torch.equal(*found)
    assert found[1].device.type == "cpu"


def test_inference_mode_is_the_cpus(gpu):
    found = []
    for device in ("cpu", "cuda"):
        x = numbers().to(device)
        with torch.inference_mode():
            y = x + 1
            made = [x.detach(), x[0], y, y.detach(), torch.rand(2, device=device), x.double()]
            with torch.inference_mode(False):
                made += [x.clone(), y.clone()]
        found.append([v.is_inference() for v in made])
    assert found[0] == found[1]
    assert set(found[0]) == {True, False}


def test_writing_through_a_view_and_a_copy_of_a_tensor(gpu):
    x = numbers().to("cuda")
    view, other = x[1], copy.deepcopy(x)
    assert view.mul_(2) is view
    x[0, 0] = 7.0
    assert x.tolist() == [[7, 1, 2], [6, 8, 10]]
    assert other.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_data_is_replaced_and_only_by_what_is_on_the_device(gpu):
    weight = nn.Parameter(numbers().to("cuda"))
    weight.data = weight.data.T.double() * 2
    assert (weight.shape, weight.dtype, weight.is_leaf) == ((3, 2), torch.float64, True)
    assert weight.tolist() == [[0, 6], [2, 8], [4, 10]]
    with pytest.raises(RuntimeError, match="expected it on cuda:0"):
        weight.data = numbers()
    with pytest.raises(RuntimeError, match="expected it on cpu"):
        numbers().data = weight


def test_a_module_goes_there_trains_and_comes_back(gpu):
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten())
        net.append(nn.Linear(16, 2)).to(device)
        torch.manual_seed(1)  # of dropout, which each device draws for itself
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
        for seed in range(3):
            x = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(seed)).to(device)
            optimizer.zero_grad()
            functional.cross_entropy(net(x), (x.mean(dim=(1, 2, 3)) > 0.5).long()).backward()
            optimizer.step()
        assert {v.device.type for v in net.state_dict().values()} == {device}
        found.append(net.cpu().state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_autocast_is_the_cpus(gpu):
    layer, found = nn.Linear(3, 2), []
    for device in ("cpu", "cuda"):
        with torch.autocast(device, torch.bfloat16):
            found.append(layer.to(device)(numbers().to(device)))
    assert found[1].dtype == torch.bfloat16
    assert torch.equal(found[0], found[1].cpu())


def test_the_device_has_a_generator_of_its_own(gpu):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    x = numbers().to("cuda")
    drawn = [torch.rand(2, device="cuda"), torch.rand_like(x), functional.dropout(x), x.normal_()]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(drawn[0].cpu(), torch.rand(2))
    torch.cuda.set_rng_state(state)
    assert torch.equal(torch.rand(2, device="cuda"), drawn[0])
    torch.manual_seed(3)
    assert torch.equal(torch.cuda.get_rng_state(), state)


def test_nothing_of_it_is_left():
    had = [torch.Generator, torch.autocast, torch.cuda.is_available, torch.cuda.manual_seed_all]
    with fake_cuda():
        assert torch.cuda.is_available()
        assert torch.Generator("cuda").device == torch.device("cuda:0")
    has = [torch.Generator, torch.autocast, torch.cuda.is_available, torch.cuda.manual_seed_all]
    assert has == had
    assert not torch.__future__.get_overwrite_module_params_on_conversion()
    assert torch.zeros(1).device.type == "cpu"


def test_a_copy_that_does_not_wait_is_waited_for_by_an_event():
    with fake_cuda() as gpu:
        x = torch.arange(3.0).to("cuda")
        copied, event = x.to("cpu", non_blocking=True), torch.cuda.Event()
        event.record()
        assert not gpu.syncs
        event.synchronize()
        assert gpu.syncs == {"event": 1}
        assert torch.equal(copied, torch.arange(3.0))
        x.to("cpu")
        assert gpu.syncs == {"event": 1, "cpu": 1}
