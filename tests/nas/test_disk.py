"""Room on a disk: counted as du counts it, read as people write it, missed however it is told."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest

from nas.disk import disk_is_full, free_on, in_bytes, shown_size, use_of


def test_a_directory_takes_what_du_says(tmp_path):
    for name, size in {"a/x.safetensors": 5000, "a/b/y.csv": 100, "z": 0, "c/l": 70_000}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    command = ["du", "-s", "--block-size=1", str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    use = use_of(tmp_path)
    assert use.total == int(said.split()[0])
    assert use.weights == 512 * (tmp_path / "a/x.safetensors").stat().st_blocks > 0
    assert use.whole
    cut = use_of(tmp_path, seconds=0)
    assert not cut.whole
    assert cut.total < use.total
    assert use_of(tmp_path / "nowhere").total == 0


def test_free_is_that_of_the_nearest_directory_that_is_there(tmp_path):
    status = os.statvfs(tmp_path)
    free = free_on(tmp_path / "not" / "there")
    assert abs(free - status.f_bavail * status.f_frsize) < 2**30


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (5, 5),
        ("7", 7),
        (2e9, 2_000_000_000),
        ("20 GB", 20 * 10**9),
        ("1.5gib", 3 * 2**29),
        ("512 MiB", 2**29),
        ("3 kB", 3000),
        ("1TB", 10**12),
    ],
)
def test_sizes_as_people_write_them(text, size):
    assert in_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "20 GiBs", "20 XB", True, [1], float("nan")])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="expected bytes, such as 20 GB or 512 MiB, got "):
        in_bytes(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_234_567, "1.23 MB"), (999_999, "1 MB"),
     (20 * 10**9, "20 GB"), (2**30, "1.07 GB")],
)  # fmt: skip
def test_sizes_as_people_read_them(size, text):
    assert shown_size(size) == text


def test_a_full_disk_is_known_by_its_number_its_words_and_its_cause():
    assert disk_is_full(OSError(errno.ENOSPC, "words in another language"))
    assert disk_is_full(OSError(errno.EDQUOT, ""))
    assert disk_is_full(RuntimeError("SafetensorError: I/O error: ... (os error 28)"))
    outer = ValueError("outer")
    outer.__cause__ = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    assert disk_is_full(outer)
    assert not disk_is_full(OSError(errno.EACCES, os.strerror(errno.EACCES)))
    assert not disk_is_full(RuntimeError("os error 281"))
    assert not disk_is_full(None)
