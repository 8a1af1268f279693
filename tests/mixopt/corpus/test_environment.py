"""The corpus of installed packages: code, prose and sums, the same for the same versions."""

import ast

import pytest

from mixopt.core.errors import CorpusError
from mixopt.corpus import harvest
from mixopt.corpus.environment import corpus_from_environment

DOMAINS = ("arithmetic", "docstrings", "headers", "licences", "python", "web")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A corpus of 0.1 MB a domain."""
    return corpus_from_environment(tmp_path_factory.mktemp("environment"), 0.1, 512)


def test_it_has_its_domains_and_target_and_each_something_to_learn(corpus):
    assert corpus.domains == DOMAINS
    assert corpus.targets == ("descriptions",)
    for name in DOMAINS:
        assert corpus.manifest.domains[name].bytes > 50_000
        assert corpus.tokens[name] > 10_000
    assert len(corpus.validation("descriptions")) > 10_000
    assert corpus.manifest.tokenizer.token_bytes == "exact"


@pytest.mark.slow
def test_the_same_environment_gives_the_same_corpus_and_more_megabytes_another(corpus, tmp_path):
    smaller = corpus_from_environment(tmp_path, 0.05, 512)
    assert sum(smaller.tokens.values()) < 0.7 * sum(corpus.tokens.values())
    again = corpus_from_environment(tmp_path, 0.1, 512)  # its tokenizer is the smaller one's
    assert [d.documents for d in again.manifest.domains.values()] == [
        d.documents for d in corpus.manifest.domains.values()
    ]
    for name in (*DOMAINS, "descriptions"):
        text = f"sources/{name}.jsonl"
        assert (again.path / text).read_bytes() == (corpus.path / text).read_bytes()


def test_the_second_time_nothing_is_gathered_or_built(corpus):
    stages = []
    again = corpus_from_environment(corpus.path, 0.1, 512, lambda *report: stages.append(report))
    assert stages == []
    assert again.hash == corpus.hash


def test_python_comes_without_docstrings_and_comments():
    text = '''"""Module."""
import os  # for paths

# a comment
def f(x):
    """Says
    what."""
    return "# kept"  # because it has quotes
'''
    [code] = harvest.python_code(text)
    assert ast.unparse(ast.parse(code)) == "import os\n\ndef f(x):\n    return '# kept'"
    assert "Module" not in code
    assert "Says" not in code
    assert "for paths" not in code


def test_docstrings_come_as_prose():
    functions = "".join(
        f'def f{n}():\n    """Does {n}.\n\n    And more.\n    """\n' for n in range(6)
    )
    [prose] = harvest.docstrings(f'"""Module."""\n{functions}')
    assert prose.startswith("Module.\n\nDoes 0.\n\nAnd more.\n\nDoes 1.")
    assert "def" not in prose


def test_minified_lines_are_broken_at_statements_and_data_is_dropped():
    text = "var a=1;" * 100 + "x='" + "9" * 2000 + "';" + "\nshort line\n"
    [code] = harvest.web_code(text)
    assert max(map(len, code.splitlines())) <= harvest.LONG_LINE
    assert code.count("var a=1;") == 100
    assert "short line" in code
    assert "999" not in code


def test_sums_are_right():
    for _, document in zip(range(20), harvest.arithmetic(), strict=False):
        for row in document.splitlines():
            question, answer = row.split(" = ")
            a, sign, b = question.split()
            expected = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign]
            assert int(answer) == expected


def test_only_what_mixopt_requires_is_read():
    names = [name for name, _ in harvest.packages()]
    assert names == sorted(names)
    assert {"numpy", "torch", "stdlib", "pydantic-core"} <= set(names)  # required, or by those
    assert not {"pytest", "hypothesis", "mypy", "ruff"} & set(names)  # only to develop mixopt


def test_no_megabytes_are_refused(tmp_path):
    with pytest.raises(CorpusError, match="hold no text"):
        corpus_from_environment(tmp_path, 0, 512)
