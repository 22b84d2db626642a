"""Adversarial examples of each run's winner: image, perturbation, adversarial image, answers."""

from __future__ import annotations

from html import escape

from launch.report.findings import Findings
from launch.report.page import Paragraph, Raw, Section, clean
from launch.runs.pictured import Example

ROW = "display:flex;gap:.6rem;flex-wrap:wrap;align-items:flex-start"
CARD = "margin:0 1.2rem 1.2rem 0;max-width:21rem"
PICTURE = "display:block;width:6rem;height:auto;image-rendering:pixelated;border:1px solid #999"
SMALL = "font:.8rem/1.4 system-ui,sans-serif"


def make(found: Findings) -> Section | None:
    """Return the examples of every winner; None where there are none."""
    blocks: list[Raw | Paragraph] = []
    for label, attacked in found.attacked.items():
        examples = attacked.examples
        if examples is None or not examples.found:
            continue
        of = f"{label}, trial" if len(found.runs) > 1 else "Trial"
        text = (
            f"{of} {examples.number}, {examples.attack}: of {examples.looked_at} validation images "
            f"the model has {examples.right} right, and the attack changes its answer to "
            f"{examples.broken} of these. Shown are the first that it breaks, then the first that "
            "withstand it."
        )
        cards = "".join(_card(example) for example in examples.found)
        blocks += [Paragraph(text), Raw(f'<div style="{ROW}">{cards}</div>')]
    if not blocks:
        return None
    lead = (
        "What the winner sees: the image, ten times what the attack added to it (grey is nothing), "
        "and their sum. These are chosen by their order alone."
    )
    return Section("examples", "Adversarial examples", lead, blocks)


def _card(example: Example) -> str:
    label, right, wrong = (
        escape(clean(name)) for name in (example.label, example.clean, example.adversarial)
    )
    image, added, worst = (
        f'<div><img style="{PICTURE}" src="data:image/png;base64,{escape(picture)}" alt="{alt}">'
        f'<div style="{SMALL}">{caption}</div></div>'
        for picture, alt, caption in zip(
            example.pictures,
            (f"an image of {label}", "ten times the perturbation", "the adversarial image"),
            (f"{right}, {example.sure:.0%}", "× 10", f"{wrong}, {example.fooled_sure:.0%}"),
            strict=True,
        )
    )
    verdict = "fooled" if example.fools else "withstands"
    height, width = example.size
    return (
        f'<div style="{CARD}"><div style="{SMALL}"><strong>{verdict}</strong>: truth {label}, '
        f'{width} × {height} pixels</div><div style="display:flex;gap:.5rem">{image}{added}{worst}'
        "</div></div>"
    )
