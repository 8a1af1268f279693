"""Commands that learn from finished runs; `predict` and `propose` read a study as well."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixopt.pipelines.cli.groups import AsJson, FitOrStudy, Group, Overrides, importable

group = Group("Finished runs and what-if")

Ratios = Annotated[Path, typer.Option(help="Mixtures of the finished runs, CSV.")]
Metrics = Annotated[Path, typer.Option(help="Their metrics; one file may hold both.")]
Weights = Annotated[
    list[str] | None,
    typer.Option(metavar="METRIC=WEIGHT", help="Repeatable; the mean of all if not given."),
]
ModelSize = Annotated[
    str | None, typer.Option(help="Model size, such as 60M; else that of the costliest runs.")
]
Plugin = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:NAME",
        callback=importable,
        help="Surrogate of your own that the fit names.",
    ),
]


@group.command(
    "mixopt fit --ratios R.csv --metrics M.csv --out fit",
    "mixopt fit --ratios R.csv --metrics M.csv --out fit --objective law=1 --surrogate gp",
)
def fit(
    ratios: Ratios,
    metrics: Metrics,
    out: Annotated[Path, typer.Option(help="Folder for the fit; an earlier fit is replaced.")],
    priors: Annotated[
        Path | None, typer.Option(help="YAML with the natural mixture and constraints.")
    ] = None,
    objective: Weights = None,
    surrogate: Annotated[
        str,
        typer.Option(callback=importable, help="What to fit; auto: the best on held-out runs."),
    ] = "auto",
    model_params: ModelSize = None,
    tokens: Annotated[str | None, typer.Option(help="Its training tokens.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Fit a surrogate to finished runs, test it on held-out runs, propose a mixture."""
    from mixopt.pipelines.offline.fit import fit_runs

    fit_runs(
        ratios,
        metrics,
        out,
        priors=priors,
        objective=objective or (),
        surrogate=surrogate,
        params=model_params,
        tokens=tokens,
        seed=seed,
        as_json=as_json,
    )


@group.command(
    "mixopt predict study.yaml --mixture web=40%", "mixopt predict fit --ratios Q.csv --out P.csv"
)
def predict(
    fit_or_study: FitOrStudy,
    mixture: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORDS",
            help="web=40%, web=0.4,code=0.6, or a name (of a study). Repeatable.",
        ),
    ] = None,
    ratios: Annotated[Path | None, typer.Option(help="Mixtures to predict, CSV.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="CSV file for the predictions; a fit needs one.")
    ] = None,
    allow_plugin: Plugin = None,
    as_json: AsJson = False,
    overrides: Overrides = None,
) -> None:
    """Predict any mixtures: what if web is 40 %? Intervals are of 90 %: mean ± 1.645 std."""
    if _is_study(fit_or_study):
        from mixopt.pipelines.study.what_if import predict_study

        _refuse_plugin(allow_plugin)
        predict_study(fit_or_study, mixture or (), ratios, out, as_json=as_json)
        return
    from mixopt.pipelines.offline.predict import predict_runs

    if mixture:
        raise typer.BadParameter("--mixture is for a study; give --ratios CSV for a fit")
    if ratios is None or out is None:
        raise typer.BadParameter("a fit needs --ratios and --out")
    predict_runs(fit_or_study, ratios, out, plugin=allow_plugin, as_json=as_json)


@group.command(
    "mixopt propose study.yaml -n 4", "mixopt propose fit -n 16 --out next.csv --bounds web=0.1:0.6"
)
def propose(
    fit_or_study: FitOrStudy,
    out: Annotated[
        Path | None, typer.Option(help="CSV to write the mixtures to; a fit needs one.")
    ] = None,
    number: Annotated[
        int | None,
        typer.Option("-n", "--number", help="How many mixtures; 16, or a study's search.batch."),
    ] = None,
    bounds: Annotated[
        list[str] | None,
        typer.Option(metavar="DOMAIN=LO:HI", help="Least and greatest weight. Repeatable."),
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(help="Budget of the run that the mixture is for, such as 20B.")
    ] = None,
    max_epochs: Annotated[
        float | None, typer.Option(help="How often that run may see a domain.")
    ] = None,
    available: Annotated[
        list[str] | None,
        typer.Option(metavar="DOMAIN=TOKENS", help="Tokens there are of it. Repeatable."),
    ] = None,
    linear: Annotated[
        list[str] | None,
        typer.Option(help='Such as "web + code <= 0.7". Repeatable.'),
    ] = None,
    kl: Annotated[
        float | None, typer.Option(help="Price of a nat of divergence from the baseline.")
    ] = None,
    proposer: Annotated[
        str | None,
        typer.Option(callback=importable, help="Name of the proposer; bayes, or the study's."),
    ] = None,
    pending: Annotated[
        Path | None, typer.Option(help="CSV of mixtures in training, without metrics yet.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The fit's or study's, if not given.")
    ] = None,
    allow_plugin: Plugin = None,
    as_json: AsJson = False,
    overrides: Overrides = None,
) -> None:
    """Propose the next mixtures to train, from a fit of finished runs or for a study."""
    from mixopt.pipelines.offline.propose import Constraints, show_proposal

    constraints = Constraints(
        bounds=bounds or (),
        budget=tokens,
        max_epochs=max_epochs,
        available=available or (),
        linear=linear or (),
        kl=kl,
    )
    if _is_study(fit_or_study):
        from mixopt.pipelines.study.what_next import propose_for_study

        _refuse_plugin(allow_plugin)
        propose_for_study(
            fit_or_study,
            number,
            out,
            constraints=constraints,
            proposer=proposer,
            pending=pending,
            seed=seed,
            as_json=as_json,
        )
        return
    if out is None:
        raise typer.BadParameter("a fit needs --out")
    show_proposal(
        fit_or_study,
        16 if number is None else number,
        out,
        constraints=constraints,
        proposer=proposer or "bayes",
        pending=pending,
        seed=seed,
        plugin=allow_plugin,
        as_json=as_json,
    )


@group.command(
    "mixopt replay --ratios R.csv --metrics M.csv --proposer random,bayes --budget 40",
    "mixopt replay --ratios R.csv --metrics M.csv --proposer bayes --budget 40 --out replay",
)
def replay(
    ratios: Ratios,
    metrics: Metrics,
    proposer: Annotated[
        str, typer.Option(callback=importable, help="Names of proposers, separated by commas.")
    ],
    budget: Annotated[float, typer.Option(help="What may be spent, in the unit of the costs.")],
    seeds: Annotated[int, typer.Option(help="Searches per proposer.")] = 20,
    objective: Weights = None,
    surrogate: Annotated[
        str | None, typer.Option(callback=importable, help="What proposers model runs with.")
    ] = None,
    initial: Annotated[
        int | None,
        typer.Option(help="Runs of the initial design; a quarter of the budget if not given."),
    ] = None,
    free: Annotated[
        int, typer.Option(help="Runs of the lowest fidelity that are free at the start.")
    ] = 0,
    batch: Annotated[int, typer.Option(help="Runs selected at once.")] = 1,
    every: Annotated[int, typer.Option(help="Batches between two recommendations.")] = 1,
    until_best: Annotated[
        bool, typer.Option("--until-best", help="End a search once it trained the best mixture.")
    ] = False,
    model_params: ModelSize = None,
    tokens: Annotated[str | None, typer.Option(help="Training tokens of the target.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for a page, CSV and JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what proposers would have found on finished runs, by cost."""
    from mixopt.offline.replay import Plan
    from mixopt.pipelines.offline.replay import show_replay

    show_replay(
        ratios,
        metrics,
        proposer,
        Plan(budget, initial, free=free, batch=batch, every=every, until_best=until_best),
        seeds,
        objective=objective or (),
        surrogate=surrogate,
        params=model_params,
        tokens=tokens,
        seed=seed,
        jobs=jobs,
        out=out,
        as_json=as_json,
    )


def _is_study(path: Path) -> bool:
    """Whether `path` is a study file, there or not; a fit is a folder."""
    return path.is_file() or path.suffix in (".yaml", ".yml")


def _refuse_plugin(name: str | None) -> None:
    if name is not None:
        raise typer.BadParameter("--allow-plugin is for a fit; a study file names its own parts")
