"""The ``psinas`` command: what a user types, and one clear line when it cannot be done."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from launch.commands.draw import draw
from launch.commands.listings import datasets, doctor, metrics, presets, samplers, spaces
from launch.commands.retrain import retrain
from launch.commands.tables import children, table_search
from launch.papers.cubuk.beside import retrain_after_search, searches_beside, with_laid
from launch.runs.searching import say_doubts, search_and_report
from launch.show.console import console, errors, say
from nas.errors import InputError, PsinasError
from nas.search.trust import plain_names, suspicions

app = typer.Typer(
    help="Search for neural architectures that stay right under attack.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(StrEnum):
    """How ``psinas trials`` prints."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


class Part(StrEnum):
    """Which images ``psinas score`` uses."""

    test = "test"
    validation = "validation"


RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]


def main() -> None:
    """Run the command line; bad input is one line and exit code 2."""
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    if os.getcwd() not in sys.path:  # a user's own modules lie beside the configuration
        sys.path.insert(0, os.getcwd())
    try:
        app(arguments, standalone_mode=True)
    except InputError as error:
        if debug:
            raise
        errors.print(f"psinas: {error}", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("psinas: interrupted")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        if debug:
            raise
        known = isinstance(error, PsinasError | OSError)
        line = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        hint = "" if known else " (a fault of psinas: --debug shows where)"
        errors.print(f"psinas: {line}{hint}", highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)


@app.command()
def search(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[PRESET|CONFIG.yaml]", help="What to search; digits by default."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Lay a value over the configuration."),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="How many different trials.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="RUN", help="The run directory; runs/<name> by default.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run; begin it if there is none.")
    ] = False,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster: auto or HOST:PORT.")
    ] = None,
) -> None:
    """Search, train and score; print the trial table and export the winner.

    Example: psinas search digits --set recipe.epochs=4 --trials 8 --out runs/quick
    """
    from launch.config.config import load_config
    from launch.runs.run import CONFIG

    laid = [*(assignments or []), *([f"trials={trials}"] if trials is not None else [])]
    if source is None and resume and out is not None and (out / CONFIG).exists():
        source = str(out / CONFIG)
    source = source or "digits"
    config = with_laid(load_config(source, laid), source, laid)
    run = out or Path("runs") / config.name
    others = searches_beside(config, run)
    keep_trials = not any(a.startswith("trials=") for a in laid)
    if not search_and_report(config, run, resume=resume, keep_trials=keep_trials, address=address):
        sys.exit(130)
    if config.retrain is not None:
        whole = retrain_after_search(config, run, others, address=address)
        sys.exit(0 if whole else 130)


@app.command()
def reproduce(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A table or figure of a paper.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="In small: minutes on two cores, not a day on a GPU.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of --quick: digits, fashion-mnist or food101-10."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Lay a value over the preset."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="The run directory; runs/<preset> by default."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster: auto or HOST:PORT.")
    ] = None,
) -> None:
    """Run a paper's search, or go on with it; print its table beside ours, and draw it.

    Example: psinas reproduce psi-figure7 --quick --data fashion-mnist
    """
    from launch.config.config import load_config
    from launch.papers.outcome import write_outcome
    from launch.papers.registry import reproduction

    asked = reproduction(name)
    config = asked.settle(load_config(asked.source(quick=quick, data=data), assignments or []))
    run = out or Path("runs") / config.name
    if not search_and_report(config, run, resume=True, keep_trials=True, address=address):
        sys.exit(130)
    outcome = asked.make(run, config, say)
    say(f"\n{name}: {asked.about}")
    for line in outcome.lines:
        say(line)
    table, picture = write_outcome(run, name, outcome)
    say(f"table in {table}, picture in {picture}")


@app.command()
def trials(
    run: RunArgument,
    sort: Annotated[str | None, typer.Option(metavar="SCORE", help="Best first.")] = None,
    pareto: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Only the front over these scores; A:max says which way."),
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Only so many rows.")] = None,
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.table,
    out: Annotated[Path | None, typer.Option(help="Write here instead of printing.")] = None,
    repeats: Annotated[
        bool, typer.Option("--repeats", help="Also proposals answered from the ledger.")
    ] = False,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Leave suspicious trials out of front, top and correlations."),
    ] = False,
    correlations: Annotated[
        bool, typer.Option("--correlations", help="Instead: which scores go together, by rank.")
    ] = False,
) -> None:
    """Show the trial table, also of a search that is running.

    Example: psinas trials runs/digits --pareto pgd_accuracy,parameters --format csv
    """
    from launch.runs.run import load_run_config
    from launch.show.tables import front_of, print_trials, select, write_trials
    from nas.ledger.table import load_table

    barred = {"--sort": sort, "--pareto": pareto, "--repeats": repeats or None}
    if correlations and (given := [name for name, value in barred.items() if value is not None]):
        raise InputError(f"--correlations: expected none of {', '.join(barred)}, got {given[0]}")
    config = load_run_config(run)
    table = load_table(run, repeats=repeats)
    if correlations:
        from launch.show.correlations import correlation_table, print_correlations

        table = correlation_table(table, config, top=top, trust=trust)
        show = partial(print_correlations, console, table)
    else:
        front = front_of(table, config, trust=trust)
        table = select(table, config, sort=sort, pareto=pareto, top=top, trust=trust)
        show = partial(print_trials, console, table, config, front)
    if format is Format.table and out is None:
        show()
    else:
        sys.stdout.write(write_trials(table, format.value, out))


@app.command()
def export(
    run: RunArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to.")],
    trial: Annotated[int | None, typer.Option(help="The number of the trial.")] = None,
    best: Annotated[str | None, typer.Option(metavar="SCORE", help="The best on it.")] = None,
) -> None:
    """Write a trial's architecture.json, model.safetensors and model card.

    Example: psinas export runs/digits --best pgd_accuracy --out winner
    """
    from launch.runs.run import (
        best_trial,
        direction_of,
        export_row,
        finished_trial,
        load_run_config,
        trial_results,
    )

    if (trial is None) == (best is None):
        raise InputError("expected --trial N or --best SCORE, got both or neither")
    row = finished_trial(run, trial) if trial is not None else best_trial(run, str(best))
    try:
        export_row(run, row, out)
    except OSError as error:
        raise InputError(f"--out: expected a directory to write, got {out}: {error}") from error
    say(f"trial {row.number} exported to {out}")
    if best is not None:
        direction = direction_of(best, load_run_config(run))
        say_doubts(trial_results(run), row, best, direction)
    elif flags := suspicions(row.result["scores"]):
        say(f"trial {row.number} is suspicious: {', '.join(flags)}")


@app.command()
def replay(
    run: RunArgument,
    trial: Annotated[int, typer.Option(help="The number of the trial.")],
) -> None:
    """Train and score a trial again on the CPU, outside Ray; exit 1 where a number differs.

    Example: psinas replay runs/digits --trial 3
    """
    from launch.runs.run import replay as again

    row, evaluation, different = again(run, trial)
    width = max(map(len, [*row.result["scores"], "status"]))
    say(f"trial {row.number}: {evaluation.status}")
    for name, stored in row.result["scores"].items():
        new = evaluation.scores.get(name)
        mark = "differs" if name in different else "equal" if "seconds" not in name else "(time)"
        say(f"{name:{width}}  {stored!r:22}  {new!r:22}  {mark}")
    if different:
        say(f"expected equal numbers, got others for {', '.join(different)}")
        sys.exit(1)
    say("equal to the last digit")


@app.command()
def score(
    target: Annotated[
        str, typer.Argument(metavar="MODEL", help="EXPORT_DIR, RUN:TRIAL or pkg.module:callable.")
    ],
    data: Annotated[
        str | None, typer.Option(metavar="NAME", help="The dataset; an export's own by default.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Names, or YAML: '[{name: pgd, steps: 20}]'."),
    ] = None,
    epsilon: Annotated[
        str | None, typer.Option(help="Of every attack that names none, such as 8/255.")
    ] = None,
    part: Annotated[Part, typer.Option("--split", help="Which images.")] = Part.test,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many images.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of random starts.")] = 0,
    suspicion: Annotated[
        bool, typer.Option("--suspicion", help="Also look for signs of masked gradients.")
    ] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Also write here.")] = None,
) -> None:
    """Score a model on test images.

    Example: psinas score runs/digits/best --metrics clean,pgd --epsilon 0.1 --suspicion
    """
    from launch.runs.run import to_json
    from launch.runs.score import score_model
    from launch.show.tables import flag_lines

    scores = score_model(
        target,
        data=data,
        metrics=metrics,
        epsilon=epsilon,
        test=part is Part.test,
        limit=limit,
        seed=seed,
        suspicion=suspicion,
    )
    if out is not None:
        try:
            out.write_text(to_json(scores) + "\n")
        except OSError as error:
            raise InputError(f"--out: expected a file to write, got {out}: {error}") from error
    plain = plain_names(scores)
    width = max(map(len, plain))
    for name in plain:
        say(f"{name:{width}}  {scores[name]:.6g}")
    for line in flag_lines(scores):
        say(line)


app.command("table-search")(table_search)
app.command()(retrain)
app.command()(draw)
app.command("children")(children)
for listing in (presets, spaces, metrics, samplers, datasets, doctor):
    app.command()(listing)
