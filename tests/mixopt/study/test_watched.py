"""What was seen of a full run is kept, and read at any stage of it."""

from pathlib import Path

from mixopt.selection.band import Place
from mixopt.study.watched import FILE, Compared, Kind, Remark, Watched, read_watched

ROWS = (Compared(100, 1.0, -0.1), Compared(200, 2.0, 0.1, -0.3, 0.0, Place.WORSE))


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    seen = Watched(ROWS, (Remark(200, Kind.WORSE, "worse", "look"),))
    seen.write(tmp_path)
    assert read_watched(tmp_path) == seen


def test_what_is_absent_cut_or_of_another_version_reads_as_nothing(tmp_path: Path) -> None:
    assert read_watched(tmp_path) == Watched()
    for text in ("", '{"compared": [{"tok', '{"compared": [{"tokens": 1}], "remarks": []}', "[1]"):
        (tmp_path / FILE).write_text(text)
        assert read_watched(tmp_path) == Watched()


def test_of_each_kind_the_last_warning_counts_and_a_note_is_none() -> None:
    said = [
        (100, Kind.BETTER, "better"),
        (200, Kind.RISE, "first rise"),
        (300, Kind.WORSE, "worse"),
        (400, Kind.RISE, "second rise"),
    ]
    assert Watched((), tuple(Remark(*it) for it in said)).warnings == ("worse", "second rise")


def test_what_to_do_is_said_while_the_run_trains() -> None:
    seen = Watched((), (Remark(200, Kind.WORSE, "it is worse", "Look at it"),))
    assert (seen.warnings, seen.findings) == (("it is worse. Look at it",), ("it is worse",))
