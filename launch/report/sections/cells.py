"""The winner of each run, drawn: its cell where the space has one, else its layers as a table."""

from __future__ import annotations

from launch.report.cells import layers_of, picture_of
from launch.report.findings import Findings
from launch.report.page import Details, Paragraph, Raw, Section, Table
from launch.runs.attacked import front_of
from nas.errors import InputError, first_line

MOST = 4  # cells of one run


def make(found: Findings) -> Section | None:
    """Return the drawn cells, or the layers, of winners; None where no model is to be built."""
    if found.seconds is None:
        return None
    blocks: list[Raw | Table | Paragraph | Details] = []
    drawn = listed = 0
    for searched in found.runs:
        if not searched.completed:
            continue
        of = f"{searched.label}, trial" if len(found.runs) > 1 else "Trial"
        try:
            winner, _ = front_of(searched.run)
            sources = {n: s for (label, n), s in found.drawn.items() if label == searched.label}
            if sources:
                for number, source in list(sources.items())[:MOST]:
                    which = "the winner" if number == winner.number else "on the front"
                    caption = f"{of} {number}, {which}."
                    blocks.append(Raw(picture_of(source, f"the cell of trial {number}"), caption))
                    drawn += 1
                continue
            table = layers_of(searched.run, winner)
        except (InputError, OSError, ValueError, RuntimeError) as error:
            why = first_line(error)
            blocks.append(Paragraph(f"{searched.label}: nothing was drawn: {why}.", "note"))
            continue
        caption = f"{of} {winner.number}, the winner: its layers in their order."
        listed += 1
        blocks.append(Details(caption, (Table(caption, *table),)))
    if not blocks:
        return None
    lead = (
        "Each picture is the cell that a network repeats; edges are operations."
        if drawn
        else "The space has no cell: the winner's layers, as it was built."
        if listed
        else "No architecture could be drawn."
    )
    return Section("cells", "The winners' architectures", lead, blocks)
