from typing import Any

from mixopt.core.objective import Objective
from mixopt.pipelines.views.closing import loads_table, promotion_table
from mixopt.pipelines.views.wording import (
    PROXY_NOTE,
    before_selection,
    foretold,
    gate_rows,
    headline,
    interval,
    interval_label,
    markdown,
    mixtures_note,
    promised,
    promotion_markdown,
    proxy_label,
)
from mixopt.surrogates.noise import Forecast, SeedScatter


def promotion(dropped: float) -> dict[str, Any]:
    return {
        "loads": {"law": [0.75, 0.25], "code": [0.1, 0.9]},
        "expert_names": ["law"],
        "entropies": {"law": 0.5, "code": 0.25},
        "dropped": {"law": 0.0, "code": dropped},
    }


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


def test_tokens_that_reach_no_expert_are_told_of_where_there_are_some() -> None:
    table = loads_table(promotion(dropped=0.125))
    assert table is not None
    assert str(table.columns[-1].header) == "reach none"
    assert list(table.columns[-1].cells) == ["0.0%", "12.5%"]


def test_a_dense_promotion_has_no_loads() -> None:
    assert loads_table({}) is None


def verdict(**promised: Any) -> dict[str, Any]:
    candidate = {"name": "recommended", "mixture": {"law": 1.0}, "mean": 3.398, "n": 3}
    candidate |= {"predicted_mean": 3.433, "predicted_std": 0.007} | promised
    known = {"std": 0.031, "freedom": 6.2, "runs": 13}
    scatter = known if promised else None
    return {"promoted": "recommended", "candidates": [candidate], "seed_scatter": scatter}


OBJECTIVE = Objective({"law": 1.0})


def test_what_was_foretold_stands_beside_what_was_measured() -> None:
    said = foretold(verdict(predicted_low=3.367, predicted_high=3.499, inside=True), OBJECTIVE)
    assert said == (
        "The search foretold 3.4330 bits per byte of the recommended mixture, 90 % between 3.3670 "
        "and 3.4990 for the mean over 3 fresh seeds; measured 3.3980, inside. Seed standard "
        "deviation of a run 0.0310, from 13 repeated runs (6.2 effective degrees of freedom)."
    )


def test_a_mean_outside_says_on_which_side() -> None:
    said = foretold(verdict(predicted_low=3.42, predicted_high=3.44, inside=False), OBJECTIVE)
    assert "measured 3.3980, below." in said


def test_intervals_of_tables_are_the_ones_that_count_seeds() -> None:
    new = verdict(predicted_low=3.367, predicted_high=3.499, inside=True)
    assert interval(new["candidates"][0], 3) == "3.433 ± 0.066"
    assert interval_label(new) == "predicted mean ± 90 %"


def test_a_verdict_of_an_older_version_has_an_interval_for_its_seed_and_no_judgement() -> None:
    assert foretold(verdict(), OBJECTIVE) == ""
    assert interval(verdict()["candidates"][0], 3) == "3.433 ± 0.012"
    assert interval_label(verdict()) == "predicted ± 90 %, one seed only"


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


PROMOTION: dict[str, Any] = {
    "mixture_name": "recommended",
    "method": "sparse",
    "tokens": 600_000,
    "stages": [],
    "active_params": 400_000,
    "model_params": 1_200_000,
    "after": {"bpb/law": 1.5},
    "predicted": {"bpb/law": [2.0, 0.01]},
    "predicted_interval": {"bpb/law": [1.9, 2.1]},
    "predicted_of": {"params": 105_000, "tokens": 400_000},
}


def test_beside_a_promoted_model_stands_what_is_predicted_of_a_proxy_and_says_so() -> None:
    label = "proxy of 105k parameters after 400k tokens, predicted"
    table = promotion_table(PROMOTION)
    assert table.columns[-1].header == label
    assert table.caption == PROXY_NOTE
    page = promotion_markdown(PROMOTION)
    assert label in page
    assert PROXY_NOTE in page
    assert "not a prediction of the promoted one" in PROXY_NOTE
    assert proxy_label({"predicted": {}}) == "proxy, predicted"  # written by an older version


def test_what_is_predicted_of_a_proxy_is_the_interval_of_a_run() -> None:
    said = {"predicted": {"bpb/law": [2.0, 0.01]}}
    assert interval(promised(said, "bpb/law"), 3) == "2.000 ± 0.016"
    said["predicted_interval"] = {"bpb/law": [1.9, 2.1]}
    assert interval(promised(said, "bpb/law"), 3) == "2.000 ± 0.100"
    assert interval(promised(said, "bpb/web"), 3) == "–"


GATED: list[dict[str, Any]] = [
    {"name": "natural", "mean": 3.6898, "std": 0.0215, "n": 3, "difference": 0.0},
    {
        "name": "recommended",
        "mean": 3.403,
        "std": 0.0269,
        "n": 3,
        "difference": -0.2868,
        "difference_low": -0.33,
        "difference_high": -0.2436,
        "adjusted_p": 0.0041,
    },
    {"name": "uniform", "mean": 3.7, "n": 1, "difference": 0.01},
]


def test_tables_show_the_difference_with_its_interval_and_the_adjusted_p_value() -> None:
    assert gate_rows(GATED, 3) == [
        ("against natural ± 90 %", ["–", "−0.287 ± 0.043", "+0.010"]),
        ("adjusted p-value", ["–", "0.004", "–"]),
    ]


def test_every_page_says_the_same_of_what_follows_a_plus_minus() -> None:
    found = {"candidates": GATED, "seed_scatter": {"std": 0.031, "freedom": 6.2, "runs": 13}}
    note = mixtures_note(found)
    page = markdown("tiny", [], OBJECTIVE, found, {})
    assert note in page
    assert "| **objective** ± sd over seeds | 3.6898 ± 0.0215 | 3.4030 ± 0.0269 | 3.7000 |" in page
    assert "mean ± standard deviation over seeds" in note
    assert "of the mean over those seeds" in note
    assert "for the search's own seed only" in mixtures_note({"candidates": GATED})


def test_the_headline_says_that_deviations_are_over_seeds() -> None:
    found = {"promoted": "recommended", "improved": True, "candidates": GATED}
    assert (
        "3.4030 bits per byte (sd over seeds 0.0269) against 3.6898 (sd over seeds 0.0215)"
    ) in headline([], OBJECTIVE, found)


def test_the_headline_names_the_evidence_of_a_promotion() -> None:
    found = {"promoted": "recommended", "improved": True, "candidates": GATED}
    assert headline([], OBJECTIVE, found).endswith(
        "(−7.8%; difference −0.2868, 90 % between −0.3300 and −0.2436; adjusted p-value 0.004)."
    )


def test_a_verdict_of_an_older_version_shows_no_p_value() -> None:
    old = {
        "promoted": "a",
        "candidates": [{**GATED[0]}, {"name": "a", "mean": 3.4, "confidence": 0.99}],
    }
    assert "99" not in headline([], OBJECTIVE, old)
    assert gate_rows(old["candidates"], 3)[1] == ("adjusted p-value", ["–", "–"])
