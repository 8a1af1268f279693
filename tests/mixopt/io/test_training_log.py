"""A run's log is read as it grows, and what a resumed run repeats counts once."""

from pathlib import Path

from mixopt.io import training_log
from mixopt.io.training_log import LOG, LogReader


def test_what_is_added_is_read_with_its_time(tmp_path: Path) -> None:
    assert training_log.read(tmp_path) == []
    training_log.append(tmp_path, {"step": 1, "loss": [2.5]})
    (report,) = training_log.read(tmp_path)
    assert (report["step"], report["loss"]) == (1, [2.5])
    assert report["time"] > 1e9


def test_a_resumed_run_takes_back_the_steps_after_its_checkpoint(tmp_path: Path) -> None:
    for step, value in [(1, "a"), (2, "a"), (3, "a"), (2, "b"), (4, "b")]:
        training_log.append(tmp_path, {"step": step, "value": value})
    found = [(report["step"], report["value"]) for report in training_log.read(tmp_path)]
    assert found == [(1, "a"), (2, "a"), (2, "b"), (4, "b")]


def test_torn_lines_and_lines_that_are_no_reports_are_left_out(tmp_path: Path) -> None:
    training_log.append(tmp_path, {"step": 1})
    with (tmp_path / LOG).open("a") as file:
        file.write('not json\n[1]\n{"tokens": 5}\n{"step": 2')
    assert [report["step"] for report in training_log.read(tmp_path)] == [1]


def test_a_reader_gives_each_line_once_and_a_half_line_when_it_is_whole(tmp_path: Path) -> None:
    training_log.append(tmp_path, {"step": 1})
    reader = LogReader(tmp_path)
    reader.skip()
    training_log.append(tmp_path, {"step": 2})
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step"')
    assert [report["step"] for report in reader.new()] == [2]
    with (tmp_path / LOG).open("a") as file:
        file.write(": 3}\n")
    assert [report["step"] for report in reader.new()] == [3]
    assert reader.new() == []
