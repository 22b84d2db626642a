"""The data of a run: their checksums in its ``config.yaml``, and every later start held to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from launch.config.documents import read_document, save_document
from nas.data.arrays import Images
from nas.data.checksum import DATA_CHECKSUM, refuse_changed
from nas.data.config import DataConfig
from nas.data.datasets import checksums, whereabouts


def settle_data(saved: Path, sources: Mapping[tuple[str, str | None, int | None], Images]) -> None:
    """Refuse data that have changed since the run began; write down what is new to it.

    A run from before there were checksums gets them now.

    Args:
        saved: ``config.yaml`` of the run.
        sources: what was read, by ``DataConfig.source``.

    Raises:
        InputError: images or labels of a part are others than the run began with.
    """
    document = read_document(saved)
    known = document.get(DATA_CHECKSUM) or {}
    new = {}
    for (name, root, image_size), images in sources.items():
        if name in new:  # in another size
            continue
        config = DataConfig(name=name, root=root, image_size=image_size)
        new[name] = checksums(config, images)
        refuse_changed(whereabouts(config), known.get(name, {}), new[name])
    if any(name not in known for name in new):
        save_document(saved, {**document, DATA_CHECKSUM: {**known, **new}})
