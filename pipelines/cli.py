"""The `mixopt` command line. A command imports what it needs when it runs: `--help` is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from mixopt import __version__
from mixopt.pipelines.corpus import corpus_app
from mixopt.pipelines.stopping import stoppable


class Commands(TyperGroup):
    """The commands, each of which ends with a message when it is stopped."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that `ctx` names."""
        with stoppable():
            return super().invoke(ctx)


app = typer.Typer(
    cls=Commands,
    help="Find the data mixture for a mixture-of-experts language model with many small proxies, "
    "and carry it into the full upcycled run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(corpus_app, name="corpus")

StudyFile = Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY.yaml")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"mixopt {__version__}")
        raise typer.Exit


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.", metavar="STUDY.yaml")],
    corpus: Annotated[
        Path | None, typer.Option(help="Folder made by `mixopt corpus build`; corpus if not given.")
    ] = None,
    trainer: Annotated[
        str | None,
        typer.Option(
            metavar="TRAINER",
            help='In place of a corpus: elsewhere, package.module:function, "python t.py {job}".',
        ),
    ] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TOKENS", help="What your trainer reads. Repeatable."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=higher", help="What it measures; or lower. Repeatable."),
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented study file for a corpus, or for a trainer of your own."""
    if trainer is None:
        if domain or metric:
            raise typer.BadParameter("--domain and --metric are for --trainer")
        from mixopt.pipelines.study.init import write_study_file

        write_study_file(file, corpus or Path("corpus"), force=force)
        return
    if corpus is not None:
        raise typer.BadParameter("give --corpus, or --trainer with --domain")
    from mixopt.pipelines.study.init_own import write_own_study_file

    write_own_study_file(file, trainer, domain or (), metric or (), force=force)


@app.command()
def plan(
    study: StudyFile,
    slots: Annotated[
        int, typer.Option(min=0, help="Trials at once; 0: as many as cores here.")
    ] = 0,
) -> None:
    """Show what a study will cost, and which constraints bind, before it trains."""
    from mixopt.pipelines.study.plan import show_plan

    show_plan(study, slots)


@app.command()
def run(study: StudyFile) -> None:
    """Search, select and promote: the whole study, from wherever it stands."""
    from mixopt.pipelines.study.run import run_study

    run_study(study)


@app.command()
def search(study: StudyFile) -> None:
    """Train the design and the proposer's rounds."""
    from mixopt.pipelines.study.run import run_study

    run_study(study, step="search")


@app.command()
def select(study: StudyFile) -> None:
    """Compare the finalists with fresh seeds and decide (after the search)."""
    from mixopt.pipelines.study.run import run_study

    run_study(study, step="select")


@app.command()
def promote(study: StudyFile) -> None:
    """Train the upcycled MoE on the selected mixture (after selection)."""
    from mixopt.pipelines.study.run import run_study

    run_study(study, step="promote")


@app.command()
def status(study: StudyFile) -> None:
    """Show where a study stands; safe while it runs."""
    from mixopt.pipelines.study.status import show_status

    show_status(study)


TrialNumbers = Annotated[
    list[int], typer.Argument(help="Numbers of the trials.", metavar="TRIAL...")
]


@app.command()
def retry(study: StudyFile, trials: TrialNumbers) -> None:
    """Run trials again that lost their worker too often."""
    from mixopt.pipelines.study.decide import retry_trials

    retry_trials(study, trials)


@app.command()
def fail(study: StudyFile, trials: TrialNumbers) -> None:
    """Give trials up: they end without a result, and the study goes on."""
    from mixopt.pipelines.study.decide import fail_trials

    fail_trials(study, trials)


@app.command()
def ask(
    study: StudyFile,
    most: Annotated[int, typer.Option("-n", min=1, help="How many trials at most.")] = 8,
    out: Annotated[
        Path | None, typer.Option(help="A .csv or .json file; else they are printed.")
    ] = None,
    again: Annotated[
        bool, typer.Option(help="Those first that were handed out and not told.")
    ] = False,
) -> None:
    """Hand out trials of a study whose trainer is elsewhere."""
    from mixopt.pipelines.study.elsewhere import ask_trials

    ask_trials(study, most, out, again=again)


@app.command()
def tell(
    study: StudyFile,
    results: Annotated[Path, typer.Argument(help="What `ask` wrote, with metrics.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Correct what was told before; it is kept as well.")
    ] = False,
) -> None:
    """Record results of trials that `ask` handed out."""
    from mixopt.pipelines.study.elsewhere import tell_results

    tell_results(study, results, replace=replace)


@app.command()
def approve(
    study: StudyFile,
    why: Annotated[str, typer.Option(help="Your reason, which is recorded.")],
) -> None:
    """Make the promoted model the champion in the registry (promote.approve: manual)."""
    from mixopt.pipelines.study.champion import approve_promotion

    approve_promotion(study, why)


@app.command()
def overrule(
    study: StudyFile,
    why: Annotated[str, typer.Option(help="Your reason, which is recorded.")],
) -> None:
    """Go on though the mixtures' order does not hold at a larger size (select.at)."""
    from mixopt.pipelines.study.transfer import overrule

    overrule(study, why)


@app.command()
def report(
    study: StudyFile,
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write; report.html in the study folder.")
    ] = None,
) -> None:
    """Write the HTML report from the ledger; safe while it runs."""
    from mixopt.pipelines.offline.outputs import FILE, writable
    from mixopt.pipelines.views.report import write_report
    from mixopt.study.settings import load_study

    if out is not None:
        writable(out, FILE)
    print(write_report(load_study(study), out))


@app.command()
def trials(
    study: StudyFile,
    format: Annotated[
        Literal["csv", "json", "parquet"], typer.Option(help="Format of the table.")
    ] = "csv",
    out: Annotated[Path | None, typer.Option(help="File to write; else it is printed.")] = None,
) -> None:
    """Write the trials as a table, a row each; safe while it runs."""
    from mixopt.pipelines.study.export_trials import export_trials

    export_trials(study, format, out)


@app.command()
def export(
    study: StudyFile,
    mixture: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="Format of the mixture, such as megatron or json."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; else it is printed.")] = None,
    path: Annotated[
        list[str] | None,
        typer.Option(metavar="DOMAIN=PATH", help="Where the trainer finds a domain. Repeatable."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="New folder for the model, as transformers loads it."),
    ] = None,
) -> None:
    """Write the chosen mixture for another trainer, or the promoted model for other tools."""
    from mixopt.pipelines.offline.outputs import FILE, writable
    from mixopt.pipelines.study.export_mixture import write_mixture
    from mixopt.pipelines.study.export_model import export_model

    if mixture is None and model is None:
        raise typer.BadParameter("give --mixture FORMAT or --model OUT")
    if out is not None:
        writable(out, FILE)
    if mixture is not None:
        write_mixture(study, mixture, out, path or ())
    if model is not None:
        export_model(study, model)


@app.command()
def sync(study: StudyFile) -> None:
    """Rebuild MLflow's view of a study from its ledger."""
    from mixopt.pipelines.study.run import sync_study

    sync_study(study)


@app.command()
def fit(
    ratios: Annotated[Path, typer.Option(help="Mixtures of the finished runs, CSV.")],
    metrics: Annotated[Path, typer.Option(help="Their metrics; one file may hold both.")],
    out: Annotated[Path, typer.Option(help="Folder for the fit; an earlier fit is replaced.")],
    priors: Annotated[
        Path | None, typer.Option(help="YAML with the natural mixture and constraints.")
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=WEIGHT", help="Repeatable; the mean of all if not given."),
    ] = None,
    surrogate: Annotated[
        str, typer.Option(help="What to fit; auto: the best on held-out runs.")
    ] = "auto",
    model_params: Annotated[
        str | None, typer.Option(help="Model size, such as 60M; else that of the costliest runs.")
    ] = None,
    tokens: Annotated[str | None, typer.Option(help="Its training tokens.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
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


FitOrStudy = Annotated[
    Path,
    typer.Argument(help="Folder of `mixopt fit`, or a study file.", metavar="DIR|STUDY.yaml"),
]


def _is_study(path: Path) -> bool:
    """Whether `path` is a study file, there or not; a fit is a folder."""
    return path.is_file() or path.suffix in (".yaml", ".yml")


@app.command()
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
    allow_plugin: Annotated[
        str | None,
        typer.Option(metavar="MODULE:NAME", help="Surrogate of your own that the fit names."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
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


def _refuse_plugin(name: str | None) -> None:
    if name is not None:
        raise typer.BadParameter("--allow-plugin is for a fit; a study file names its own parts")


@app.command()
def front(
    study: StudyFile,
    out: Annotated[Path | None, typer.Option(help="CSV to write, a row per mixture.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what can be had of several metrics at once: the Pareto front, and how to choose."""
    from mixopt.pipelines.study.front import show_front

    show_front(study, out, as_json=as_json)


@app.command()
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
        str | None, typer.Option(help="Name of the proposer; bayes, or the study's.")
    ] = None,
    pending: Annotated[
        Path | None, typer.Option(help="CSV of mixtures in training, without metrics yet.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The fit's or study's, if not given.")
    ] = None,
    allow_plugin: Annotated[
        str | None,
        typer.Option(metavar="MODULE:NAME", help="Surrogate of your own that the fit names."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
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


@app.command()
def replay(
    ratios: Annotated[Path, typer.Option(help="Mixtures of the finished runs, CSV.")],
    metrics: Annotated[Path, typer.Option(help="Their metrics; one file may hold both.")],
    proposer: Annotated[str, typer.Option(help="Names of proposers, separated by commas.")],
    budget: Annotated[float, typer.Option(help="What may be spent, in the unit of the costs.")],
    seeds: Annotated[int, typer.Option(help="Searches per proposer.")] = 20,
    objective: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=WEIGHT", help="Repeatable; the mean of all if not given."),
    ] = None,
    surrogate: Annotated[str | None, typer.Option(help="What proposers model runs with.")] = None,
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
    model_params: Annotated[
        str | None, typer.Option(help="Model size, such as 60M; else that of the costliest runs.")
    ] = None,
    tokens: Annotated[str | None, typer.Option(help="Training tokens of the target.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for a page, CSV and JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
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


@app.command()
def upcycle(
    spec: Annotated[
        Path, typer.Argument(help="File that names the models and the method.", metavar="SPEC.yaml")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to make.", metavar="OUT")],
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder for models fetched from URLs; beside OUT if not given."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and print the plan; write nothing.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the receipt (or the plan) as one JSON object.")
    ] = False,
) -> None:
    """Turn dense checkpoints into a mixture of experts in the Hugging Face layout."""
    from mixopt.pipelines.upcycling.upcycle import upcycle as upcycle_folders

    upcycle_folders(spec, out, cache=cache, dry_run=dry_run, as_json=as_json)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to work.")] = Path("demo"),
) -> None:
    """Run the main job on text that is on this machine: a few minutes on two cores."""
    from mixopt.pipelines.study.demo import run_demo

    run_demo(folder)


def main(*arguments: Any) -> None:
    """The entry point: runs a command; errors of mixopt's own are printed without a traceback."""
    from mixopt.core.errors import MixoptError

    try:
        app(*arguments)
    except MixoptError as error:
        from mixopt.pipelines.views.console import make_error_console, styled

        message = styled(("error", "bold red"), f" {error}")
        make_error_console().print(message, soft_wrap=True)
        sys.exit(1)
