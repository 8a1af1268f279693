"""Names and messages of others are shown as they are, in Markdown and on pages."""

from __future__ import annotations

import shlex
from pathlib import Path

import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.verbatim import verbatim, verbatim_block
from tests.pipelines.made_runs import DOMAINS, Run, tables

EVIL = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<a href='http://x.example'>web</a>",
    "a & b <b>",
)
MARKS = st.text(alphabet="ab \\`*_[]<>|~#!()&lt;:-1.", min_size=1, max_size=20).map(str.strip)


def texts(markdown: str) -> str:
    """What a page of Markdown shows, without what it makes bold, a link, a cell or HTML."""
    page = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    found = []
    for token in page.parse(markdown):
        assert token.type not in ("html_block", "heading_open"), markdown
        for part in token.children or ():
            assert part.type in ("text", "text_special"), (part.type, markdown)
            found.append(part.content)
    return "".join(found)


@given(MARKS.filter(bool))
def test_a_name_in_a_cell_is_shown_as_it_is(name: str) -> None:
    assert texts(f"| name | value |\n|---|---|\n| {verbatim(name)} | x |") == f"namevalue{name}x"


@given(st.text(alphabet="a`\n ~", max_size=30))
def test_a_message_does_not_leave_its_block(message: str) -> None:
    blocks = MarkdownIt("commonmark").parse(verbatim_block(message))
    assert [block.type for block in blocks] == ["fence"]
    assert blocks[0].content.rstrip("\n") == message.rstrip("\n")


def test_the_report_of_a_fit_runs_nothing_that_a_name_says(tmp_path: Path, run: Run) -> None:
    ratios, metrics = tables(tmp_path, n=12, metrics=EVIL[:2])
    names = [f"{EVIL[j % 4]}{j}" for j in range(12)]
    frame = pl.read_csv(ratios).rename(dict(zip(DOMAINS, EVIL, strict=True)))
    frame.with_columns(run=pl.Series(names)).write_csv(ratios)
    pl.read_csv(metrics).with_columns(run=pl.Series(names)).write_csv(metrics)
    arguments = ("--ratios", ratios, "--metrics", metrics, "--out", tmp_path / "fit")
    assert run("fit", *arguments, "--surrogate", "linear").code == 0
    page = (tmp_path / "fit" / "report.html").read_text()
    for text in EVIL[:3]:
        assert text not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "\\u003cimg src=x" not in page  # as figures would write it: Plotly makes tags of labels
    assert "\\u003ca href='http://x.example" not in page


def test_commands_that_are_told_can_be_pasted_into_a_shell() -> None:
    result = command("retry", Path("my studies") / "a?b" / "study.yaml", 3)
    assert shlex.split(result) == ["mixopt", "retry", "my studies/a?b/study.yaml", "3"]
    assert command("run", "study.yaml") == "mixopt run study.yaml"
