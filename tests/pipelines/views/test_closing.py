import dataclasses

from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import Fidelity, State, Trial, TrialSpec
from mixopt.pipelines.views.closing import loads_table, promotion_table
from mixopt.pipelines.views.mlflow.study_page import StudyPage
from mixopt.pipelines.views.wording import (
    PROXY_NOTE,
    UNTRAINED,
    before_selection,
    calibration,
    gate_rows,
    headline,
    interval,
    interval_label,
    mixtures_note,
    promotion_markdown,
)
from mixopt.plots.promotion import expert_loads
from mixopt.selection.results import Candidate, Decision, Predicted
from mixopt.study.results import Promotion, Verdict
from mixopt.surrogates.noise import Forecast, SeedScatter
from tests.pipelines.finished_study import promotion_of, verdict_of

MIXTURE = Mixture.of({"law": 3, "code": 1})
OBJECTIVE = Objective({"law": 1.0})
SCATTER = SeedScatter(std=0.031, freedom=6.2, runs=13)


def promotion(dropped: float) -> Promotion:
    return promotion_of(
        MIXTURE,
        loads={"law": (0.75, 0.25), "code": (0.1, 0.9)},
        expert_names=("law",),
        entropies={"law": 0.5, "code": 0.25},
        dropped={"law": 0.0, "code": dropped},
    )


def test_loads_stand_beside_the_expert_that_they_are_of() -> None:
    table = loads_table(promotion(dropped=0.0))
    assert table is not None
    shown = {str(column.header): list(column.cells) for column in table.columns}
    assert shown == {
        "tokens of": ["law", "code"],
        "expert law": ["75%", "10%"],
        "expert seed": ["25%", "90%"],
        "gate entropy": ["0.50", "0.25"],
    }


def test_experts_of_one_seed_are_numbered() -> None:
    sparse = dataclasses.replace(promotion(dropped=0.0), expert_names=())
    table = loads_table(sparse)
    assert table is not None
    heads = [str(column.header) for column in table.columns]
    assert heads == ["tokens of", "expert seed 1", "expert seed 2", "gate entropy"]
    figure = expert_loads(sparse.loads, sparse.expert_labels)
    assert list(figure.data[0].x) == ["seed 1", "seed 2"]


def test_tokens_that_reach_no_expert_are_told_of_where_there_are_some() -> None:
    table = loads_table(promotion(dropped=0.125))
    assert table is not None
    assert str(table.columns[-1].header) == "reach none"
    assert list(table.columns[-1].cells) == ["0.0%", "12.5%"]


def test_a_dense_promotion_has_no_loads() -> None:
    assert loads_table(promotion_of(MIXTURE, loads={})) is None


GATED = (
    Candidate("natural", MIXTURE, 3, 3.6898, 0.0215, difference=0.0),
    Candidate(
        "recommended",
        MIXTURE,
        3,
        3.403,
        0.0269,
        difference=-0.2868,
        difference_low=-0.33,
        difference_high=-0.2436,
        adjusted_p=0.0041,
    ),
    Candidate("uniform", MIXTURE, 1, 3.7, difference=0.01),
)
DECISION = Decision(
    baseline="natural",
    promoted="recommended",
    improved=True,
    reason="recommended differs from natural",
    confidence=0.9,
    level=0.1,
    look=1,
    looks=1,
    candidates=GATED,
)


def verdict(scatter: SeedScatter | None = SCATTER, **predicted: float) -> Verdict:
    values = {"mean": 3.433, "std": 0.007, "low": 3.367, "high": 3.499} | predicted
    one = Candidate("recommended", MIXTURE, 3, 3.398, predicted=Predicted.from_json(values))
    return verdict_of(DECISION, candidates=(GATED[0], one), seed_scatter=scatter)


def test_the_prediction_stands_beside_the_measurement() -> None:
    assert calibration(verdict(), OBJECTIVE) == (
        "The search predicted 3.4330 bits per byte of the recommended mixture, 90 % between 3.3670 "
        "and 3.4990 for the mean over 3 fresh seeds; measured 3.3980, inside. Seed standard "
        "deviation of a run 0.0310, from 13 repeated runs (6.2 effective degrees of freedom)."
    )


def test_a_mean_outside_says_on_which_side() -> None:
    assert "measured 3.3980, below." in calibration(verdict(low=3.42, high=3.44), OBJECTIVE)
    assert "measured 3.3980, above." in calibration(verdict(low=3.3, high=3.34), OBJECTIVE)


def test_the_other_mixtures_are_counted_where_they_were_predicted() -> None:
    shown = verdict_of(DECISION)  # predicted .006 above the measured mean, ± .018
    assert "Of the other mixtures 2 of 2 are inside." in calibration(shown, OBJECTIVE)


def test_intervals_of_tables_are_the_ones_that_count_seeds() -> None:
    assert interval(verdict().winner.predicted, 3) == "3.433 ± 0.066"
    assert interval(None, 3) == "–"
    assert interval_label(verdict()) == "predicted mean ± 90 %"


def test_without_repeats_an_interval_is_for_one_seed() -> None:
    alone = verdict(scatter=None)
    assert "for its own seed only" in calibration(alone, OBJECTIVE)
    assert interval_label(alone) == "predicted ± 90 %, one seed only"


def test_nothing_is_said_of_predictions_before_there_is_a_verdict() -> None:
    assert calibration(None, OBJECTIVE) == ""


def test_before_selection_the_interval_says_what_it_is_for() -> None:
    alone = before_selection(Forecast(3.0, 0.1), OBJECTIVE)
    assert "between 2.8355 and 3.1645 for the search's seed only" in alone
    assert "search.repeats" in alone
    known = Forecast(3.0, 0.1, scatter=SeedScatter(0.1, 2.0, 3))
    assert before_selection(known, OBJECTIVE) == (
        "recommended: 3.0000 bits per byte, 90 % between 2.6649 and 3.3351 for the mean over "
        "seeds, between 2.8355 and 3.1645 for the search's own; seed standard deviation of a "
        "run 0.1000, from 3 repeated runs (2 effective degrees of freedom)"
    )


PROMOTION = promotion_of(
    MIXTURE,
    after={"bpb/law": 1.5, "bpb/web": 1.6},
    predicted={"bpb/law": Predicted(2.0, 0.01, 1.9, 2.1)},
    predicted_of=Fidelity("proxy", 105_000, 400_000),
)


def test_beside_a_promoted_model_stands_what_is_predicted_of_a_proxy_and_says_so() -> None:
    label = "proxy of 105k parameters after 400k tokens, predicted"
    table = promotion_table(PROMOTION)
    assert table.columns[-1].header == label
    assert list(table.columns[-1].cells) == ["2.000 ± 0.100", "–"]
    assert table.caption == PROXY_NOTE
    page = promotion_markdown(PROMOTION)
    assert label in page
    assert PROXY_NOTE in page
    assert "not a prediction of the promoted one" in PROXY_NOTE


def test_tables_show_the_difference_with_its_interval_and_the_adjusted_p_value() -> None:
    assert gate_rows(GATED, 3) == [
        ("against natural ± 90 %", ["–", "−0.287 ± 0.043", "+0.010"]),
        ("adjusted p-value", ["–", "0.004", "–"]),
    ]


def test_every_page_says_the_same_of_what_follows_a_plus_minus() -> None:
    found = verdict_of(DECISION, seed_scatter=SCATTER)
    note = mixtures_note(found, OBJECTIVE)
    page = StudyPage("study.yaml", [], OBJECTIVE, found, None).markdown()
    assert note in page
    assert "| **objective** ± sd over seeds | 3.6898 ± 0.0215 | 3.4030 ± 0.0269 | 3.7000 |" in page
    assert "mean ± standard deviation over seeds" in note
    assert "of the mean over those seeds" in note
    assert "for the search's own seed only" in mixtures_note(verdict_of(DECISION), OBJECTIVE)


def test_the_headline_says_that_deviations_are_over_seeds() -> None:
    assert (
        "3.4030 bits per byte (sd over seeds 0.0269) against 3.6898 (sd over seeds 0.0215)"
    ) in headline([], OBJECTIVE, verdict_of(DECISION))


def test_the_headline_names_the_evidence_of_a_promotion() -> None:
    assert headline([], OBJECTIVE, verdict_of(DECISION)).endswith(
        "(−7.8%; difference −0.2868, 90 % between −0.3300 and −0.2436; adjusted p-value 0.004)."
    )


def test_every_page_names_the_baseline_that_the_study_compares_with() -> None:
    renamed = dataclasses.replace(DECISION.candidates[0], name="production")
    found = verdict_of(
        dataclasses.replace(
            DECISION, baseline="production", candidates=(renamed, *DECISION.candidates[1:])
        )
    )
    assert "(sd over seeds 0.0215) for the production mixture" in headline([], OBJECTIVE, found)
    assert "against production, of the mean difference" in mixtures_note(found, OBJECTIVE)
    page = StudyPage("study.yaml", [], OBJECTIVE, found, None).markdown()
    assert "| against production ± 90 % | – | −0.2868 ± 0.0432 |" in page
    assert "natural" not in page


def test_a_promotion_that_was_not_trained_shows_no_training() -> None:
    made = promotion_of(
        MIXTURE,
        after={},
        predicted={},
        stages=(),
        curve=(),
        tokens=0,
        imported={"seed": "models/[x]"},
    )
    table = promotion_table(made)
    assert [str(column.header) for column in table.columns] == [
        "bits per byte",
        "dense seed",
        "upcycled, untrained",
    ]
    assert "Upcycled by branch-train-mix, not trained" in str(table.title)
    assert table.caption == UNTRAINED
    assert table.row_count == len(made.before)
    page = promotion_markdown(made)
    assert page.splitlines()[0] == "| metric | dense seed | upcycled, untrained |"
    assert page.endswith(UNTRAINED)
    assert made.metrics == made.before


def test_the_next_step_of_what_is_trained_elsewhere_is_to_ask() -> None:
    begun = StudyPage("study.yaml", [], OBJECTIVE, None, None, elsewhere=True)
    assert "`mixopt ask study.yaml` goes on" in begun.markdown()
    trial = Trial(0, TrialSpec(MIXTURE, Fidelity("proxy", 1, 1), 0), State.FAILED)
    chosen = StudyPage("study.yaml", [trial], OBJECTIVE, verdict_of(DECISION), None)
    for verb in ("ask", "promote"):
        page = dataclasses.replace(chosen, promotes=verb).markdown()
        assert f"`mixopt {verb} study.yaml`" in page
