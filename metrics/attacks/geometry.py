"""Balls, spheres and cubes around images: projections that no rounding leaves, uniform draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Real

import torch
from torch import Tensor

from metrics.precision import widened

NORMS = ("linf", "l2")
SHORTER = 1 - 2**-20  # of an L2 length: what float32 may lose of its sum of squares
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}

Block = tuple[torch.Generator, int]
"""A generator, and how many images it draws for at a time."""
_larger: ContextVar[tuple[Tensor, int] | None] = ContextVar("larger", default=None)


@contextmanager
def drawn_among(places: Tensor, count: int) -> Iterator[None]:
    """Give images the random numbers that they have in a larger batch, of which others have some.

    Within, a batch of as many images as ``places`` draws for ``count`` of them, as whoever attacks
    them all does; an attack has to take its numbers from a :class:`Randomness`.

    Args:
        places: ``(N,)``, where each image stands in the larger batch, on the images' device.
        count: images of that.
    """
    token = _larger.set((places, count))
    try:
        yield
    finally:
        _larger.reset(token)


class Randomness:
    """Random numbers that belong to images.

    They are drawn in blocks of images, each with a generator of its own, whatever is left of a
    block: so an image's numbers depend neither on which others have been dropped nor on how many
    are looked at together.

    Args:
        batch: ``(N, C, H, W)``, gives the type and device.
        blocks: of the images; None is one block of all of them, of ``generator``.
        places: ``(N,)``, where each image stands in the blocks, counted through.
        generator: draws on its own device.
    """

    def __init__(
        self,
        batch: Tensor,
        generator: torch.Generator | None = None,
        *,
        blocks: Sequence[Block] = (),
        places: Tensor | None = None,
    ) -> None:
        self._device = batch.device
        self._type = torch.float64 if batch.dtype == torch.float64 else torch.float32
        self._blocks = blocks or [(own_generator(generator, batch.device), len(batch))]
        self._places = torch.arange(len(batch), device=batch.device) if places is None else places
        self._all = places is None
        larger = _larger.get()
        if larger is not None and [n for _, n in self._blocks] == [len(larger[0])]:
            self._blocks = [(self.generator, larger[1])]
            self._places, self._all = larger[0].index_select(0, self._places), False
        self.rows = torch.arange(len(batch), device=batch.device)
        """Which images of the batch are left."""

    @property
    def places(self) -> Tensor:
        """Where the images that are left stand in the blocks."""
        return self._places.index_select(0, self.rows)

    @property
    def generator(self) -> torch.Generator:
        """The generator of the first block: for attacks that draw for a whole batch themselves."""
        return self._blocks[0][0]

    def keep(self, rows: Tensor) -> None:
        """Draw for these images of the batch alone, ``(rows,)``, from now on."""
        self.rows, self._all = rows, False

    def uniform(self, *shape: int) -> Tensor:
        """Return ``(rows, *shape)`` draws from U[0, 1), in float32 at least."""
        return self._draw(torch.rand, shape)

    def normal(self, *shape: int) -> Tensor:
        """Return ``(rows, *shape)`` draws from N(0, 1), in float32 at least."""
        return self._draw(torch.randn, shape)

    def _draw(self, make: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        drawn = [
            make((n, *shape), generator=g, device=g.device, dtype=self._type).to(self._device)
            for g, n in self._blocks
        ]
        whole = drawn[0] if len(drawn) == 1 else torch.cat(drawn)
        if self._all:
            return whole
        return whole.index_select(0, self.places)


def own_generator(generator: torch.Generator | None, device: torch.device) -> torch.Generator:
    """Return ``generator``, or one seeded by torch's global one.

    The global one is no source for the steps of an attack: a model may seed it in its forward.
    """
    if isinstance(generator, torch.Generator):
        return generator
    if generator is not None:
        raise ValueError(
            f"generator: expected a torch.Generator or None, got {type(generator).__name__}; "
            "see torch.Generator().manual_seed"
        )
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (), device="cpu")))


def within(x: Tensor, epsilon: float | Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest image of the cube of half side ``epsilon``, in the box.

    Both have the type of ``x`` and are rounded towards it, so that whatever lies between them is
    in the ball exactly, in half precision too.
    """
    wide = x.double()
    low = (wide - epsilon).clamp_min(0).to(x.dtype)
    high = (wide + epsilon).clamp_max(1).to(x.dtype)
    low = _step(low, (wide - low.double() > epsilon).to(_integers(x)))
    return low, _step(high, -(high.double() - wide > epsilon).to(_integers(x)))


def moved(x: Tensor, delta: Tensor) -> Tensor:
    """Return ``x + delta`` in the box, in the type of ``x``; no pixel goes further than asked.

    Args:
        x: in [0, 1].
        delta: in float32 at least.
    """
    wide, delta = x.double(), delta.double()
    there = (wide + delta).clamp_(0, 1).to(x.dtype)
    went = there.double() - wide
    back = torch.where(went > 0, -1, 1).to(_integers(x))
    return _step(there, torch.where(went.abs() > delta.abs(), back, 0))


def project(delta: Tensor, norm: str, epsilon: float) -> Tensor:
    """Return ``delta`` moved to the nearest point of the ball of radius ``epsilon``."""
    if norm == "linf":
        return delta.double().clamp(-epsilon, epsilon)  # float32 may round epsilon up
    length = column(length_of(delta, norm))
    shorter = delta * (SHORTER * epsilon / torch.where(length > 0, length, 1))
    return torch.where(length > SHORTER * epsilon, shorter, delta)


def length_of(delta: Tensor, norm: str) -> Tensor:
    """Return ``(N,)``: the length of each sample of ``delta`` in ``norm``, in float32 at least."""
    flat = widened(delta).flatten(1)
    if norm == "linf":
        return flat.abs().amax(dim=1)
    length: Tensor = flat.double().norm(dim=1)
    return length.to(flat.dtype)  # squares below 1e-45 are lost in float32


def unit(v: Tensor) -> Tensor:
    """Return each sample of ``v`` at Euclidean length 1, in float32 at least; 0 stays 0.

    Divided by the largest entry first: squares of entries below 1e-19 are lost in float32.
    """
    v = widened(v)
    largest = v.flatten(1).abs().amax(dim=1)
    scaled = v / column(torch.where(largest > 0, largest, 1))
    length = scaled.flatten(1).norm(dim=1)
    return scaled / column(torch.where(length > 0, length, 1))


def in_ball(shape: tuple[int, ...], norm: str, random: Randomness) -> Tensor:
    """Return uniform draws from the unit ball, one for each image of ``shape`` ``(C, H, W)``.

    The L2 draw is direction * U^(1/n), which is uniform in volume.
    """
    if norm == "linf":
        return 2 * random.uniform(*shape) - 1
    direction = unit(random.normal(*shape))
    return direction * random.uniform(1, 1, 1) ** (1 / direction[0].numel())


def column(v: Tensor) -> Tensor:
    """Return ``(N,)`` values shaped to broadcast against images."""
    return v.view(-1, 1, 1, 1)


def check_norm(norm: str) -> None:
    """Raise ValueError for an unknown norm."""
    if norm not in NORMS:
        raise ValueError(f"norm: expected one of {list(NORMS)}, got {norm!r}")


def check_length(name: str, length: float, norm: str, *, zero: bool) -> None:
    """Raise ValueError for a length in pixels that no images in [0, 1] have.

    In L infinity none is above 1; in L2 the longest is the root of the number of pixels, which
    :func:`check_reach` asks of the images.
    """
    number = isinstance(length, Real) and not isinstance(length, bool)
    if not (number and math.isfinite(length) and (0 <= length if zero else 0 < length)):
        raise ValueError(f"{name}: expected a pixel distance {'>=' if zero else '>'} 0, "
                         f"got {length!r}")  # fmt: skip
    if norm == "linf" and length > 1:
        begin = "[0" if zero else "(0"
        raise ValueError(
            f"{name}: expected a pixel distance in {begin}, 1], such as 8/255, got {length!r}"
        )


def check_reach(epsilon: float, norm: str, images: Tensor) -> None:
    """Raise ValueError for an L2 radius above the diameter of the images."""
    diameter = math.sqrt(images[0].numel())
    if norm == "l2" and epsilon > diameter:
        raise ValueError(
            f"epsilon: expected an L2 length up to {diameter:.4g}, the diameter of images "
            f"{tuple(images.shape[1:])} in [0, 1], got {epsilon!r}"
        )


def _integers(x: Tensor) -> torch.dtype:
    return _INTEGERS[x.element_size()]


def _step(v: Tensor, ulps: Tensor) -> Tensor:
    """Return ``v`` >= 0 moved by so many of its neighbours: floats in the order of their bits."""
    return (v.view(ulps.dtype) + ulps).view(v.dtype)
