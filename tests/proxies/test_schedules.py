import pytest

from mixopt.core.recipe import Recipe
from mixopt.proxies.schedules import rate_share


def test_the_rate_rises_stays_and_falls_to_its_end() -> None:
    recipe = Recipe(warmup=0.1, decay=0.4, final_rate=0.05)
    shares = [rate_share(step, 100, recipe) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9:60] == pytest.approx([1.0] * 51)
    assert shares[-1] == pytest.approx(0.05)
    assert shares[:10] == sorted(shares[:10])
    assert shares[60:] == sorted(shares[60:], reverse=True)


def test_a_schedule_without_warmup_and_decay_is_constant() -> None:
    recipe = Recipe(warmup=0.0, decay=0.0)
    assert [rate_share(step, 7, recipe) for step in range(7)] == [1.0] * 7


def test_a_single_step_has_a_rate_above_zero() -> None:
    assert rate_share(0, 1, Recipe(warmup=1.0, decay=0.0)) > 0
