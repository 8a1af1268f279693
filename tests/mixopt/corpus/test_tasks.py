"""A task's lines become rows of tokens and bytes; what is no question is named by line and key."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from mixopt.core.errors import CorpusError
from mixopt.corpus.questions import Questions
from mixopt.corpus.shards import Corpus
from mixopt.corpus.tasks import Task

CHOICE = {"context": "the court holds that", "choices": [" the act applies", " über"], "answer": 1}
CONTINUATION = {"context": "she walked along the", "continuation": " grey river"}


def write(folder: Path, *lines: object) -> Path:
    path = folder / "exam.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def prepared(corpus: Corpus, folder: Path, *lines: object, limit: int | None = None) -> Questions:
    path = Task("exam", write(folder, *lines), limit).prepare(corpus, folder, 64)
    return Questions.read(path)


def test_rows_are_the_joined_texts_after_an_end_of_text(text_corpus: Corpus, tmp_path: Path):
    questions = prepared(text_corpus, tmp_path, CHOICE, CONTINUATION)
    tokenizer = Tokenizer.from_file(str(text_corpus.tokenizer_path))
    texts = [CHOICE["context"] + answer for answer in CHOICE["choices"]]
    texts.append(CONTINUATION["context"] + CONTINUATION["continuation"])
    for number, text in enumerate(texts):
        first, *ids = questions.row(number, 1000).tolist()
        assert first == text_corpus.end_of_text_id
        assert ids == tokenizer.encode(text).ids
    assert questions.choices.tolist() == [2, 1]
    assert questions.right.tolist() == [1, 2]
    assert questions.sizes.tolist() == [16, len(" über".encode()), 11]


def test_answers_begin_where_their_text_does(text_corpus: Corpus, tmp_path: Path):
    questions = prepared(text_corpus, tmp_path, CHOICE, CONTINUATION)
    tokenizer = Tokenizer.from_file(str(text_corpus.tokenizer_path))
    for number, answer in enumerate([*CHOICE["choices"], CONTINUATION["continuation"]]):
        ids = questions.row(number, 1000)[questions.contexts[number] :]
        assert tokenizer.decode(ids.tolist()) == answer


def test_a_token_across_the_border_is_the_answers(text_corpus: Corpus, tmp_path: Path):
    split = {"context": "she walked along the gr", "continuation": "ey river"}
    questions = prepared(text_corpus, tmp_path, split)
    tokenizer = Tokenizer.from_file(str(text_corpus.tokenizer_path))
    ids = questions.row(0, 1000)[questions.contexts[0] :]
    assert tokenizer.decode(ids.tolist()).endswith("ey river")
    before = tokenizer.decode(questions.row(0, 1000)[1 : questions.contexts[0]].tolist())
    assert split["context"].startswith(before)
    assert questions.sizes.tolist() == [8]


def test_long_contexts_are_cut_on_the_left(text_corpus: Corpus, tmp_path: Path):
    questions = prepared(text_corpus, tmp_path, CONTINUATION)
    whole = questions.row(0, 1000)
    assert np.array_equal(questions.row(0, 5), whole[-6:])


def test_an_empty_context_leaves_an_end_of_text(text_corpus: Corpus, tmp_path: Path):
    questions = prepared(text_corpus, tmp_path, {"context": "", "continuation": "act"})
    assert questions.contexts.tolist() == [1]


def test_a_limit_takes_questions_evenly_spread(text_corpus: Corpus, tmp_path: Path):
    lines = [{"context": f"{n}", "continuation": "act"} for n in range(100)]
    assert prepared(text_corpus, tmp_path, *lines, limit=4).lines.tolist() == [1, 26, 51, 76]
    few = prepared(text_corpus, tmp_path, *lines[:3], limit=4)
    assert few.lines.tolist() == [1, 2, 3]


def test_a_budget_of_tokens_takes_questions_evenly_spread(text_corpus: Corpus, tmp_path: Path):
    lines = [{"context": "the act", "continuation": " applies"} for _ in range(40)]
    questions = prepared(text_corpus, tmp_path, *lines)
    each = int(questions.lengths[0]) - 1
    assert questions.spread(10 * each, 64).tolist() == list(range(0, 40, 4))
    assert questions.spread(0, 64).tolist() == [0]
    assert len(questions.spread(10**9, 64)) == 40
    assert len(questions.spread(10 * each, each // 2)) > 15  # cut rows cost less


def test_prepared_questions_are_named_for_what_they_hold(text_corpus: Corpus, tmp_path: Path):
    path = write(tmp_path, CHOICE)
    task = Task("exam", path)
    first = task.prepare(text_corpus, tmp_path, 64)
    changed = first.stat().st_mtime_ns
    assert task.prepare(text_corpus, tmp_path, 64) == first
    assert first.stat().st_mtime_ns == changed
    assert Task("exam", path, limit=1).key(text_corpus) != task.key(text_corpus)
    before = task.key(text_corpus)
    write(tmp_path, CHOICE, CONTINUATION)
    assert task.key(text_corpus) != before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"context": "a"', r"exam.jsonl:2: is not JSON"),
        ("[1]", r"exam.jsonl:2: is not a JSON object"),
        ('{"continuation": "a"}', r"exam.jsonl:2: context: must be text, is None"),
        ('{"context": "a"}', r"exam.jsonl:2: has neither `choices` nor `continuation`"),
        ('{"context": "a", "choices": ["b", "c"], "continuation": "d"}', r"2: has both"),
        ('{"context": "a", "continuation": ""}', r"2: continuation: is empty"),
        ('{"context": "a", "choices": ["b"], "answer": 0}', r"2: choices: must be a list of two"),
        ('{"context": "a", "choices": ["b", 3], "answer": 0}', r"2: choices: must be a list"),
        ('{"context": "a", "choices": ["b", "b"], "answer": 0}', r"2: choices: holds the same"),
        ('{"context": "a", "choices": ["b", "c"]}', r"2: answer: must be a number from 0 to 1"),
        ('{"context": "a", "choices": ["b", "c"], "answer": 2}', r"2: answer: .* is 2"),
        ('{"context": "a", "choices": ["b", "c"], "answer": true}', r"2: answer: .* is True"),
    ],
)
def test_what_is_no_question_is_named(text_corpus: Corpus, tmp_path: Path, line: str, message: str):
    path = write(tmp_path, CHOICE)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(CorpusError, match=message):
        Task("exam", path).prepare(text_corpus, tmp_path, 64)


def test_files_that_give_nothing_are_named(text_corpus: Corpus, tmp_path: Path):
    path = write(tmp_path)
    with pytest.raises(CorpusError, match=r"exam.jsonl: holds no question"):
        Task("exam", path).prepare(text_corpus, tmp_path, 64)
    with pytest.raises(CorpusError, match=r"none.jsonl: cannot be read.*tasks: exam:"):
        Task("exam", tmp_path / "none.jsonl").prepare(text_corpus, tmp_path, 64)
    path.write_bytes(b'{"context": "\xff"}\n')
    with pytest.raises(CorpusError, match=r"exam.jsonl: is not UTF-8"):
        Task("exam", path).prepare(text_corpus, tmp_path, 64)


def test_an_answer_longer_than_a_sequence_is_named_by_its_line(text_corpus: Corpus, tmp_path: Path):
    long = {"context": "a", "continuation": " applies" * 30}
    path = write(tmp_path, CHOICE, CONTINUATION, long)
    with pytest.raises(CorpusError, match=r"exam.jsonl:3: an answer has \d+ tokens"):
        Task("exam", path).prepare(text_corpus, tmp_path, 10)


def test_a_broken_preparation_is_named(text_corpus: Corpus, tmp_path: Path):
    path = Task("exam", write(tmp_path, CHOICE)).prepare(text_corpus, tmp_path, 64)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CorpusError, match=r"cannot be read.*Remove the file"):
        Questions.read(path)
