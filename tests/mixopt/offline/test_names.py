import pytest

from mixopt.core.errors import StudyError
from mixopt.offline.names import find_name

DOMAINS = ("web", "code", "web-news", "5mix", "train_the_pile_arxiv", "a+b")


@pytest.mark.parametrize(
    ("name", "found"),
    [("arxiv", "train_the_pile_arxiv"), ("web", "web"), ("NEWS", "web-news"), ("pile", DOMAINS[4])],
)
def test_any_part_that_only_one_name_has_will_do_and_a_whole_name_comes_first(
    name: str, found: str
) -> None:
    assert find_name(name, DOMAINS, "domain") == found


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("we", "--bounds we=1: 'we' could be web, web-news. Give more of the name"),
        ("cod3", "--bounds we=1: no domain is called 'cod3'. Did you mean code?"),
        ("zzz", "'zzz'. Choose from web, code, web-news, 5mix, train_the_pile_arxiv and 1 more."),
        ("", "no domain is called ''"),
    ],
)
def test_a_name_of_none_or_of_several_is_an_error_with_choices(name: str, message: str) -> None:
    with pytest.raises(StudyError) as problem:
        find_name(name, DOMAINS, "domain", "--bounds we=1")
    assert message in str(problem.value)
