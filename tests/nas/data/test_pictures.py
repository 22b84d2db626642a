"""Image files of every kind become 8-bit RGB, or are refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from nas.data.pictures import decode
from nas.errors import InputError

RNG = np.random.default_rng(0)
SIDE = 16
GREY = RNG.integers(0, 65536, (SIDE, SIDE)).astype(np.uint16)


def refused(match, *files):
    with pytest.raises(InputError, match=match) as error:
        decode(files, SIDE)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(GREY).save(path)
    expected = np.round(GREY / 65535 * 255)
    for channel in decode((path,), SIDE)[0]:
        np.testing.assert_allclose(channel, expected, atol=0.5)


def test_sixteen_bits_of_the_other_byte_order(tmp_path):
    header = f"P5 {SIDE} {SIDE} 65535\n".encode()
    (tmp_path / "a.pgm").write_bytes(header + GREY.astype(">u2").tobytes())
    expected = np.round(GREY / 65535 * 255)
    np.testing.assert_allclose(decode((tmp_path / "a.pgm",), SIDE)[0, 0], expected, atol=0.5)


def test_sixteen_bits_that_hold_fewer_are_refused(tmp_path):
    for name, values in (("eight", GREY >> 8), ("twelve", GREY >> 4), ("whole", GREY)):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    for name in ("eight", "twelve"):
        refused("use their range of 65535, got no pixel above", tmp_path / f"{name}.png")
    assert len(decode((tmp_path / "eight.png", tmp_path / "whole.png"), SIDE)) == 2  # a dark one


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_thirty_two_bits_are_refused_by_their_mode(tmp_path, dtype):
    Image.fromarray(GREY.astype(dtype)).save(tmp_path / "a.tiff")
    refused("of 32 bits .mode [IF]", tmp_path / "a.tiff")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_other_modes_of_eight_bits_are_read(tmp_path, mode):
    colour = Image.fromarray(RNG.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    colour.convert(mode).save(path)
    pixels = decode((path,), SIDE)
    expected = np.asarray(colour.convert(mode).convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_allclose(pixels[0], expected, atol=90 if mode == "CMYK" else 0)
    assert len(np.unique(pixels)) > 1


def test_what_is_no_image_is_refused(tmp_path):
    Image.fromarray(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    made = {"empty": b"", "text": b"hello", "truncated": whole[: len(whole) // 2],
            "damaged": whole[:60] + b"\xff" * 60 + whole[120:]}  # fmt: skip
    for name, content in made.items():
        (tmp_path / f"{name}.png").write_bytes(content)
        refused(f"expected an image, got .*{name}.png: .", tmp_path / f"{name}.png")
