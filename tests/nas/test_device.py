"""Which devices compute bfloat16 natively."""

from __future__ import annotations

import pytest
import torch

from nas.device import fast_bf16

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _no_limit(monkeypatch):
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("major", "fast"), [(7, False), (8, True), (9, True)])
def test_a_card_has_bf16_from_compute_capability_8_on(monkeypatch, major, fast):
    """Also where torch would emulate it, as on a T4 (7.5): a bfloat16 tensor can be made there."""
    card = type("Card", (), {"major": major})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: card)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda *_: True)
    monkeypatch.setattr(torch.version, "hip", None)
    assert fast_bf16(CUDA) is fast


@pytest.mark.parametrize("amx", [True, False])
def test_a_cpu_has_it_with_amx(monkeypatch, amx):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert fast_bf16(CPU) is (amx and torch.backends.mkldnn.is_available())


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
@pytest.mark.parametrize(
    ("most", "fast"),
    [
        ("ALL", True),
        ("AVX512_CORE_AMX", True),
        ("AVX512_CORE_BF16", False),
        ("avx2", False),
    ],
)
def test_onednn_may_be_kept_from_amx(monkeypatch, most, fast):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", most)
    assert fast_bf16(CPU) is fast


def test_other_devices_have_none():
    assert not fast_bf16(torch.device("meta"))
