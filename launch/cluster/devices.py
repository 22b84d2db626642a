"""A GPU that Ray has given to a worker, and that torch cannot use there."""

from __future__ import annotations

from nas.device import why_no_gpu
from nas.errors import InputError

REMEDY = "mend its driver, start the node with --num-gpus=0, or --set resources.gpu=0"


def check_device(device: str) -> None:
    """Refuse ``cuda`` where torch has none, in a line rather than in torch's words.

    Raises:
        InputError: with the remedy; the caller names the node.
    """
    if device == "cuda" and (why := why_no_gpu()):
        raise InputError(f"Ray counts GPUs there, torch can use none ({why}): {REMEDY}")
