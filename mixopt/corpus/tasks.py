"""Tasks: JSONL with contexts and answers, tokenized once with the corpus' tokenizer.

    {"context": "The capital of France is", "choices": [" Lyon", " Paris"], "answer": 1}
    {"context": "The capital of France is", "continuation": " Paris"}

Context and answer are joined as they stand: an answer begins with its own space. They are tokenized
together, as a document would be; a token that reaches across their border belongs to the answer.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.core.errors import CorpusError
from mixopt.corpus.manifest import digest, file_sha256
from mixopt.corpus.questions import Questions
from mixopt.corpus.shards import Corpus
from mixopt.corpus.tokenizer import Encoder

FORMAT = 1  # raised when the same file would give other questions


@dataclass(frozen=True)
class Task:
    """A file of questions.

    Attributes:
        name: in metrics: `task/<name>` and `accuracy/<name>`.
        path: the JSONL file.
        limit: questions taken, evenly spread over the file; None takes all.
    """

    name: str
    path: Path
    limit: int | None = None

    def key(self, corpus: Corpus) -> str:
        """Identity of the prepared questions: the file's content, the limit, the tokenizer.

        Raises:
            CorpusError: the file cannot be read.
        """
        try:
            state = self.path.stat()
            content = _sha256(self.path, state.st_mtime_ns, state.st_size)
        except OSError as error:
            raise CorpusError(
                f"cannot be read: {error.strerror}",
                where=str(self.path),
                hint=f"Fix the path under `tasks: {self.name}:`; it is relative to the study file",
            ) from None
        return digest([FORMAT, content, self.limit, corpus.tokenizer_hash])[:16]

    def prepare(self, corpus: Corpus, folder: Path, longest: int) -> Path:
        """The prepared questions in `folder`, made if they are not there: `Questions.read` them.

        Args:
            corpus: whose tokenizer it is.
            folder: where prepared tasks are kept.
            longest: tokens that an answer may have.

        Raises:
            CorpusError: the file cannot be read, or a line is not a question; names file, line and
                key.
        """
        path = folder / f"{self.name}-{self.key(corpus)}.npz"
        if not path.is_file():
            _tokenized(self, corpus).write(path)
        questions = Questions.read(path)
        most = questions.lengths - questions.contexts
        if most.max() > longest:
            question = int(np.searchsorted(questions.first, int(most.argmax()), "right")) - 1
            raise CorpusError(
                f"an answer has {most.max()} tokens, more than a sequence of {longest}",
                where=f"{self.path}:{questions.lines[question]}",
                hint="Shorten the answer, or train on longer sequences",
            )
        return path


@dataclass(frozen=True)
class _Question:
    context: str
    answers: tuple[str, ...]
    right: int
    line: int


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, changed: int, size: int) -> str:
    """Hash of a file's content, found once as long as the file says that it has not changed."""
    return file_sha256(path)


def _tokenized(task: Task, corpus: Corpus) -> Questions:
    asked = list(_read(task.path))
    if not asked:
        raise CorpusError("holds no question", where=str(task.path))
    taken = min(len(asked), task.limit or len(asked))
    asked = [asked[i * len(asked) // taken] for i in range(taken)]
    encoder = Encoder.of(corpus.manifest.tokenizer, corpus.path)
    pairs = [(question, answer) for question in asked for answer in question.answers]
    encodings = encoder.tokenizer.encode_batch(
        [question.context + answer for question, answer in pairs], add_special_tokens=False
    )
    rows, contexts, sizes = [], [], []
    for (question, answer), encoding in zip(pairs, encodings, strict=True):
        ends = np.array([end for _, end in encoding.offsets])
        inside = int(np.count_nonzero(ends <= len(question.context)))
        if inside == len(ends):
            raise CorpusError(
                f"the tokenizer makes nothing of the answer {answer!r}",
                where=f"{task.path}:{question.line}",
            )
        rows.append([corpus.end_of_text_id, *encoding.ids])
        contexts.append(1 + inside)
        sizes.append(len(answer.encode()))
    first = np.cumsum([0, *(len(question.answers) for question in asked)])
    return Questions(
        tokens=np.concatenate([np.array(row, dtype=np.int32) for row in rows]),
        starts=np.cumsum([0, *map(len, rows)]),
        contexts=np.array(contexts, dtype=np.int64),
        sizes=np.array(sizes, dtype=np.int64),
        first=first,
        right=first[:-1] + np.array([question.right for question in asked], dtype=np.int64),
        lines=np.array([question.line for question in asked], dtype=np.int64),
    )


def _read(path: Path) -> Iterator[_Question]:
    with path.open(encoding="utf-8") as file:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _question(line, f"{path}:{number}", number)
        except UnicodeDecodeError as error:
            raise CorpusError(f"is not UTF-8: {error.reason}", where=str(path)) from None


def _question(line: str, where: str, number: int) -> _Question:
    try:
        question = json.loads(line)
    except ValueError as error:
        raise CorpusError(f"is not JSON: {error}", where=where) from None
    if not isinstance(question, dict):
        raise CorpusError("is not a JSON object", where=where, hint="Write one question a line")
    context = _text(question, "context", where)
    if ("choices" in question) == ("continuation" in question):
        raise CorpusError(
            "has both `choices` and `continuation`"
            if "choices" in question
            else "has neither `choices` nor `continuation`",
            where=where,
            hint="Give choices with the index of the right one as `answer`, or one continuation",
        )
    if "continuation" in question:
        continuation = _text(question, "continuation", where)
        if not continuation:
            raise CorpusError("is empty", where=f"{where}: continuation")
        return _Question(context, (continuation,), 0, number)
    choices = question["choices"]
    fit = isinstance(choices, list) and len(choices) > 1
    if not (fit and all(isinstance(choice, str) and choice for choice in choices)):
        raise CorpusError("must be a list of two texts or more", where=f"{where}: choices")
    if len(set(choices)) < len(choices):
        raise CorpusError("holds the same text twice", where=f"{where}: choices")
    answer = question.get("answer")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise CorpusError(
            f"must be a number from 0 to {len(choices) - 1}, is {answer!r}",
            where=f"{where}: answer",
            hint="Give the place of the right choice, counted from 0",
        )
    return _Question(context, tuple(choices), answer, number)


def _text(question: dict[str, Any], key: str, where: str) -> str:
    value = question.get(key)
    if not isinstance(value, str):
        raise CorpusError(f"must be text, is {value!r}", where=f"{where}: {key}")
    return value
