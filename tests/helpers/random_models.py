"""Random small models, as people write them: what metrics must get right, or refuse in one line.

A :class:`Recipe` names the parts and a seed; :func:`make` builds from it a model, its images and
labels, and a twin of the model that plays the model's part where a test asks it something.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from random_parts import (
    ACTIVATIONS,
    BLOCKS,
    BUFFERS,
    COUPLING,
    ENDINGS,
    FORWARDS,
    HEADS,
    NORMS,
    Merging,
    Parts,
    Silent,
)
from torch import nn

DTYPES = ("float32", "float64", "float16", "bfloat16")
MODES = ("train", "eval", "mixed", "frozen norms")
WRAPPERS = (
    "none", "traced", "scripted", "exported", "fx", "parallel", "traced in train", "frozen script",
)  # fmt: skip
HOOKS = (
    "none", "forward", "forward pre", "backward", "backward pre", "doubling", "global forward",
    "global pre", "global backward",
)  # fmt: skip
PARAMETERS = (
    "plain", "frozen", "some frozen", "with gradients", "channels_last", "shared", "inference",
)  # fmt: skip
TRAINS = ("plain", "silent", "merging")
IMAGES = (
    "random", "corners", "blank", "some blank", "channels_last", "turned", "expanded", "inference",
    "requires_grad", "strided",
)  # fmt: skip
LABELS = ("int64", "int32", "int16", "int8", "uint8")
CALLERS = ("plain", "no_grad", "inference_mode", "float64 default", "medium", "deterministic")


@dataclass(frozen=True)
class Recipe:
    """The parts of a situation."""

    seed: int = 0
    n: int = 3
    channels: int = 1
    height: int = 6
    width: int = 6
    classes: int = 3
    blocks: tuple[str, ...] = ("conv",)
    activation: str = "relu"
    norm: str = "none"
    head: str = "flatten"
    ending: str = "none"
    forward: str = "none"
    buffer: str = "none"
    dtype: str = "float32"
    mode: str = "train"
    wrapper: str = "none"
    hook: str = "none"
    parameters: str = "plain"
    train: str = "plain"
    images: str = "random"
    labels: str = "int64"
    right: bool = True
    caller: str = "plain"


def mostly(plain, names):
    """Return a strategy for one of ``names``; two times in three it is ``plain``."""
    return st.one_of(st.just(plain), st.just(plain), st.sampled_from(names))


def recipes():
    """Return a strategy for recipes; it shrinks towards a small convolutional net."""
    return st.builds(
        Recipe,
        seed=st.integers(0, 10_000),
        n=st.integers(1, 5),
        channels=st.sampled_from([1, 3]),
        height=st.integers(4, 12),
        width=st.integers(4, 12),
        classes=st.integers(2, 12),
        blocks=st.lists(st.sampled_from(list(BLOCKS)), min_size=0, max_size=3).map(tuple),
        activation=st.sampled_from(list(ACTIVATIONS)),
        norm=st.sampled_from(list(NORMS)),
        head=st.sampled_from(list(HEADS)),
        ending=mostly("none", list(ENDINGS)),
        forward=mostly("none", list(FORWARDS)),
        buffer=mostly("none", list(BUFFERS)),
        dtype=mostly("float32", DTYPES),
        mode=st.sampled_from(MODES),
        wrapper=st.one_of(st.just("none"), mostly("none", WRAPPERS)),
        hook=mostly("none", HOOKS),
        parameters=mostly("plain", PARAMETERS),
        train=mostly("plain", TRAINS),
        images=mostly("random", IMAGES),
        labels=mostly("int64", LABELS),
        right=st.sampled_from([True, True, True, False]),
        caller=mostly("plain", CALLERS),
    )


@dataclass
class Case:
    """A model and what it is given; ``twin`` is another of the same recipe, in ``eval()``."""

    recipe: Recipe
    model: nn.Module
    twin: nn.Module
    images: torch.Tensor
    labels: torch.Tensor

    @property
    def random(self) -> bool:
        """Whether answers change from one pass to the next."""
        recipe = self.recipe
        seeds = recipe.forward == "seeding" and recipe.wrapper in ("none", "parallel")
        unseeded = recipe.forward == "seeding" and not seeds  # a recording loses the seed
        return unseeded or recipe.forward == "random" or recipe.buffer == "moving"

    @property
    def coupled(self) -> bool:
        """Whether an image's answer depends on the others in its batch."""
        recipe = self.recipe
        used = {recipe.norm, recipe.forward, recipe.buffer, *recipe.blocks}
        return self.random or bool(used & COUPLING)

    @property
    def refusable(self) -> bool:
        """Whether the recipe has something that may be refused."""
        recipe = self.recipe
        return (
            recipe.ending in ("tuple", "dict", "integer", "one column", "squeezed")
            or recipe.wrapper in ("exported", "traced in train", "frozen script")
            or (recipe.norm == "batch, always" and recipe.wrapper in ("traced", "scripted"))
            or recipe.parameters == "inference"
            or recipe.head == "lazy"
            # On a CPU autocast means bfloat16, which no norm in float16 takes.
            or (recipe.forward == "autocast" and recipe.dtype == "float16")
        )

    def answers(self, images: torch.Tensor) -> torch.Tensor:
        """Return the twin's logits, in float64."""
        with torch.inference_mode(False), torch.no_grad():
            return self.twin(images.clone()).double()

    def wrong(self, images: torch.Tensor) -> torch.Tensor:
        """Return ``(N,)`` bool: which images the twin gets wrong, by the definition."""
        logits = self.answers(images)
        return (
            (logits.argmax(1) != self.labels.long())
            | logits.isnan().any(1)
            | ~logits.amax(1).isfinite()
        )

    def own_error(self) -> Exception | None:
        """Return what the model itself raises, asked for logits and their gradient."""
        try:
            with torch.inference_mode(False), torch.enable_grad():
                one = self.images.detach()[:1].clone()
                self.twin(one.clone())
                x = torch.cat([self.images.detach(), one]).requires_grad_()
                logits = self.twin(x.clone())
                if isinstance(logits, torch.Tensor) and logits.requires_grad:
                    logits.double().sum().backward()
        except Exception as error:
            return error
        return None


@contextmanager
def case_of(recipe: Recipe):
    """Yield the case of a recipe, under its caller's settings; global hooks go away again."""
    handles = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model, twin = built(recipe), built(recipe)
            (twin.eval if recipe.wrapper != "exported" else lambda: None)()
            images = images_of(recipe)
            handles = global_hooks(recipe.hook)
            labels = labels_of(recipe, twin, images)
            with calling(recipe.caller):
                yield Case(recipe, model, twin, images, labels)
        finally:
            for handle in handles:
                handle.remove()


def built(recipe: Recipe) -> nn.Module:
    """Return the model of a recipe, a new one each time, the same for the same recipe."""
    torch.manual_seed(recipe.seed)
    with torch.inference_mode(recipe.parameters == "inference"):
        model = _plain(recipe)
    _in_mode(model, recipe)
    _hook(model, recipe.hook)
    return _wrapped(model, recipe)


def _plain(recipe: Recipe) -> nn.Module:
    parts = Parts(recipe.activation, recipe.norm)
    shape = (recipe.channels, recipe.height, recipe.width)
    body = []
    for name in recipe.blocks:
        block = BLOCKS[name](shape, parts)
        try:
            with torch.no_grad():
                out = block.eval()(torch.rand(2, *shape))
        except RuntimeError:  # a pool of one pixel, say
            continue
        body.append(block.train())
        shape = tuple(out.shape[1:])
    body += [BUFFERS[recipe.buffer](), HEADS[recipe.head](shape, recipe.classes)]
    inner = FORWARDS[recipe.forward](nn.Sequential(*body))
    kind = {"plain": nn.Sequential, "silent": Silent, "merging": Merging}[recipe.train]
    model = kind(inner, ENDINGS[recipe.ending]())
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
    _parameters(model, recipe.parameters)
    return model.to(getattr(torch, recipe.dtype))


def _parameters(model: nn.Module, kind: str) -> None:
    ready = [p for p in model.parameters() if not nn.parameter.is_lazy(p)]
    for i, p in enumerate(ready):
        if kind == "frozen" or (kind == "some frozen" and i % 2):
            p.requires_grad_(False)
        elif kind == "with gradients" and i % 2:
            p.grad = torch.ones_like(p)
        elif kind == "channels_last" and p.ndim == 4:
            p.data = p.data.to(memory_format=torch.channels_last)
    if kind == "shared":
        convs = [m for m in model.modules() if type(m) is nn.Conv2d and m.bias is not None]
        for a, b in zip(convs, convs[1:], strict=False):
            if a.bias.shape == b.bias.shape:
                b.bias = a.bias


def _in_mode(model: nn.Module, recipe: Recipe) -> None:
    if recipe.mode == "train":
        model.train()
    elif recipe.mode == "eval":
        model.eval()
    else:
        for i, module in enumerate(model.modules()):
            norm = isinstance(module, nn.modules.batchnorm._NormBase)
            module.training = not norm if recipe.mode == "frozen norms" else i % 2 == 0


def _hook(model: nn.Module, kind: str) -> None:
    modules = list(model.modules())
    inner = modules[len(modules) // 2]
    if kind == "forward":
        inner.register_forward_hook(lambda *_: None)
    elif kind == "forward pre":
        inner.register_forward_pre_hook(lambda *_: None)
    elif kind == "backward":
        inner.register_full_backward_hook(lambda *_: None)
    elif kind == "backward pre":
        inner.register_full_backward_pre_hook(lambda *_: None)
    elif kind == "doubling":
        inner.register_forward_hook(
            lambda _m, _i, out: 2 * out if isinstance(out, torch.Tensor) else None
        )


def global_hooks(kind: str) -> list:
    """Register hooks on all modules there are; return their handles."""
    every = nn.modules.module
    register = {
        "global forward": every.register_module_forward_hook,
        "global pre": every.register_module_forward_pre_hook,
        "global backward": every.register_module_full_backward_hook,
    }
    return [register[kind](lambda *_: None)] if kind in register else []


def _wrapped(model: nn.Module, recipe: Recipe) -> nn.Module:
    x = images_of(replace(recipe, images="random", n=2))
    kind = recipe.wrapper
    if kind == "none" or recipe.head == "lazy":
        return model
    if kind == "frozen script" and (recipe.buffer, recipe.forward) != ("none", "none"):
        return model  # torch 2.14 crashes where forward writes to what was frozen, now and then
    if kind == "parallel":
        return nn.DataParallel(model)
    found = model.training
    try:
        if kind == "traced in train":
            return _traced(model.train(), x)
        model.eval()
        if kind == "exported":
            return torch.export.export(model, (x,), strict=False).module()
        if kind == "fx":
            return torch.fx.symbolic_trace(model).train(found)
        scripted = _scripted(model, x) if kind != "traced" else _traced(model, x)
        return torch.jit.freeze(scripted) if kind == "frozen script" else scripted.train(found)
    except Exception:  # what cannot be written down so stays as it is
        return built(replace(recipe, wrapper="none"))


def _traced(model: nn.Module, x: torch.Tensor) -> nn.Module:
    return torch.jit.trace(model, x, check_trace=False)


def _scripted(model: nn.Module, x: torch.Tensor) -> nn.Module:
    try:
        return torch.jit.script(model)
    except Exception:  # Python that is no TorchScript
        return _traced(model, x)


def images_of(recipe: Recipe) -> torch.Tensor:
    """Return images ``(n, channels, height, width)`` in [0, 1]."""
    draws = torch.Generator().manual_seed(recipe.seed)
    shape = (recipe.n, recipe.channels, recipe.height, recipe.width)
    x = torch.rand(shape, generator=draws, dtype=torch.float32)
    kind = recipe.images
    if kind == "corners":
        x = x.round()
    elif kind == "blank":
        x = torch.full_like(x, recipe.seed % 3 / 2)
    elif kind == "some blank":
        x[:: 1 + recipe.seed % 3] = recipe.seed % 2
    x = x.to(getattr(torch, recipe.dtype))
    if kind == "channels_last":
        x = x.to(memory_format=torch.channels_last)
    elif kind == "turned":
        x = x.transpose(2, 3).contiguous().transpose(2, 3)
    elif kind == "expanded":
        x = x[:1].expand(shape)
    elif kind == "strided":
        x = x.repeat_interleave(2, dim=3)[..., ::2]
    elif kind == "inference":
        with torch.inference_mode():
            x = x.clone()
    return x.requires_grad_() if kind == "requires_grad" else x


def labels_of(recipe: Recipe, twin: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return labels, most of them what the twin answers: what is wrong already is not attacked."""
    draws = torch.Generator().manual_seed(recipe.seed + 1)
    labels = torch.randint(recipe.classes, (recipe.n,), generator=draws)
    if recipe.right:
        try:
            with torch.no_grad():
                answers = twin(images.detach().clone()).argmax(1)
            labels = answers if answers.shape == labels.shape else labels
        except Exception:
            pass
    return labels.to(getattr(torch, recipe.labels))


@contextmanager
def calling(kind: str):
    """Set what a caller may have set; put back what was there."""
    contexts = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
    found = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    try:
        if kind == "float64 default":
            torch.set_default_dtype(torch.float64)
        elif kind == "medium":
            torch.set_float32_matmul_precision("medium")
        elif kind == "deterministic":
            torch.use_deterministic_algorithms(True, warn_only=True)
        with contexts.get(kind, nullcontext)():
            yield
    finally:
        torch.set_default_dtype(found[0])
        torch.set_float32_matmul_precision(found[1])
        torch.use_deterministic_algorithms(False)


def portrait(case: Case) -> dict:
    """Return all that must be as it was: the model, the images, torch's settings."""
    model, recipe = case.model, case.recipe
    out = {"settings": _settings(), "x": _of_tensor(case.images), "y": _of_tensor(case.labels)}
    if not (case.random or recipe.forward == "seeding" or recipe.wrapper == "traced in train"):
        out["torch's own generator"] = torch.get_rng_state().numpy().tobytes()
    for name, module in model.named_modules():
        out[f"{name} mode"] = module is model or id(module), getattr(module, "training", None)
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for kind in ("forward", "forward_pre", "backward", "backward_pre"):
            hooks = getattr(module, f"_{kind}_hooks")
            out[f"{name} {kind} hooks"] = [(key, id(hook)) for key, hook in hooks.items()]
        for kind, held in (("parameter", module._parameters), ("buffer", module._buffers)):
            for key, tensor in held.items():
                out[f"{name}.{key} {kind}"] = id(tensor), _of_tensor(tensor)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        out[name] = _of_tensor(tensor)
    return out


def _of_tensor(tensor: torch.Tensor | None) -> tuple | None:
    if tensor is None:
        return None
    if nn.parameter.is_lazy(tensor):
        return ("lazy",)
    grad = None
    if tensor.is_leaf and tensor.grad is not None:
        grad = id(tensor.grad), _bits(tensor.grad)
    layout = tensor.stride() if tensor.layout is torch.strided else tensor.layout
    return tensor.dtype, tensor.shape, layout, tensor.requires_grad, _bits(tensor), grad


def _bits(tensor: torch.Tensor) -> bytes:
    with torch.inference_mode(tensor.is_inference()):
        plain = tensor.detach()
        plain = plain.to_dense() if plain.layout is not torch.strided else plain
        flat = plain.reshape(-1).clone(memory_format=torch.contiguous_format)
        return flat.view(torch.uint8).numpy().tobytes()


def _settings() -> tuple:
    backends = torch.backends
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        backends.mha.get_fastpath_enabled(),
        backends.cudnn.deterministic,
        backends.cudnn.benchmark,
        backends.cudnn.allow_tf32,
        [
            getattr(b, "fp32_precision", None)
            for b in (
                backends,
                backends.cudnn.conv,
                backends.cudnn.rnn,
                backends.cuda.matmul,
                backends.mkldnn.conv,
                backends.mkldnn.rnn,
                backends.mkldnn.matmul,
            )
        ],
        torch.get_num_threads(),
        torch.is_anomaly_enabled(),
        len(nn.modules.module._global_forward_hooks),
        len(nn.modules.module._global_forward_pre_hooks),
        len(nn.modules.module._global_backward_hooks),
    )
