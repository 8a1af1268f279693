from typing import Any

from pipelines.closing import loads_table


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
