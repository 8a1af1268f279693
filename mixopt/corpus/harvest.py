"""Text that is on every machine with mixopt: its dependencies' code, prose, headers and licences.

Only the distributions that mixopt itself requires are read, and of them only what they installed:
the same package versions give the same documents, whatever else is installed beside them.
"""

from __future__ import annotations

import ast
import email
import random
import re
import sysconfig
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

PIECE = 16 << 10  # characters of a document at most: documents enough to hold some out
PIECES_OF_FILE = 3  # lest one long file dominates its package
LONG_LINE = 300  # characters: a line beyond is minified, and broken at its statements
FEW_QUOTES = 10  # a module with less than 5 docstrings is not worth the parsing
LARGE_MODULE = 200_000  # characters: nor is a generated one
ROOTS = ("mixopt",)

Pieces = Iterator[str]
Package = tuple[str, Sequence[Path]]
"""A distribution's name and the files that it installed, sorted."""


def packages(roots: Iterable[str] = ROOTS) -> list[Package]:
    """All that `roots` require, without their extras, and the standard library; sorted."""
    found: dict[str, Package] = {}
    wanted = list(roots)
    while wanted:
        name = _plain(wanted.pop())
        if name in found:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for another platform, or a build without it
        # Our own files change while we write them, and with how we are installed.
        found[name] = (name, [] if name in ROOTS else _files(distribution))
        wanted.extend(_required(distribution))
    standard = Path(sysconfig.get_path("stdlib"))
    for name, pattern in (("stdlib", "*.py"), ("stdlib-packages", "*/*.py")):
        inside = [p for p in sorted(standard.glob(pattern)) if "site-packages" not in p.parts]
        found[name] = (name, inside)
    include = Path(sysconfig.get_path("include"))
    found["include"] = ("include", sorted(include.glob("**/*.h")))
    return [found[name] for name in sorted(found)]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _required(distribution: metadata.Distribution) -> Iterator[str]:
    for line in distribution.requires or []:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name
        # the extras that a requirement asks for add little text: left out


def _files(distribution: metadata.Distribution) -> list[Path]:
    """What RECORD lists; read by hand, as `Distribution.files` takes seconds for torch."""
    root = Path(str(distribution.locate_file("")))
    rows = (distribution.read_text("RECORD") or "").splitlines()
    names = (row.rsplit(",", 2)[0].strip('"') for row in rows)
    return [root / name for name in sorted(names) if not name.startswith(("..", "/"))]


def harvest(characters: int) -> dict[str, Iterator[str]]:
    """Domain → its documents, at most about `characters` of them; `descriptions` is the target."""
    installed = packages()
    domains = {
        domain: _capped(_taking_turns(installed, suits, pieces), characters)
        for domain, (suits, pieces) in FILES.items()
    }
    domains["arithmetic"] = _capped(arithmetic(), characters)
    domains["descriptions"] = _capped(descriptions(name for name, _ in installed), characters)
    return domains


def _capped(documents: Iterable[str], characters: int) -> Iterator[str]:
    for document in documents:
        if characters <= 0:
            return
        characters -= len(document)
        yield document


def _taking_turns(
    installed: Sequence[Package], suits: Callable[[Path], bool], pieces: Callable[[str], Pieces]
) -> Iterator[str]:
    """A file of each package in turn, so that no package dominates; lazily read."""
    turns = [(path for path in _spread([p for p in files if suits(p)])) for _, files in installed]
    while turns:
        still = []
        for turn in turns:
            path = next(turn, None)
            if path is None:
                continue
            still.append(turn)
            for _, piece in zip(range(PIECES_OF_FILE), pieces(_read(path)), strict=False):
                if len(piece) >= 200 and not piece.isspace():
                    yield piece
        turns = still


def _spread(files: list[Path]) -> list[Path]:
    """All files, shuffled the same way each time: a package's first folders are not its all."""
    return random.Random(len(files)).sample(files, len(files))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _cut(text: str) -> Pieces:
    """Pieces of at most about `PIECE` characters, ending at line ends."""
    lines: list[str] = []
    size = 0
    for line in text.splitlines(keepends=True):
        lines.append(line)
        size += len(line)
        if size >= PIECE:
            yield "".join(lines)
            lines, size = [], 0
    if lines:
        yield "".join(lines)


def python_code(text: str) -> Pieces:
    """Python without docstrings and comments."""
    tree = _parse(text)
    if tree is None:
        return
    lines = text.splitlines(keepends=True)
    for expression in _docstrings(tree):
        for number in range(expression.lineno - 1, expression.end_lineno or expression.lineno):
            lines[number] = ""
    code = (_uncommented(line) for line in lines if not line.lstrip().startswith("#"))
    yield from _cut(re.sub(r"\n{3,}", "\n\n", "".join(code)).lstrip("\n"))


def _parse(text: str) -> ast.Module | None:
    with warnings.catch_warnings():  # of other people's escapes
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _uncommented(line: str) -> str:
    """The line without a comment at its end; a `#` that may lie in a string stays."""
    code, mark, _ = line.partition("  # ")
    return code.rstrip() + "\n" if mark and not re.search(r"['\"]", code) else line


def _docstrings(
    parent: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> Iterator[ast.Expr]:
    """Of a module, its classes and functions; walking every expression takes 4 times as long."""
    match parent.body:
        case [ast.Expr(value=ast.Constant(value=str())) as expression, *_]:
            yield expression
    for node in parent.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(node)


def docstrings(text: str) -> Pieces:
    """The docstrings of a module, as prose: one document."""
    if text.count('"""') < FEW_QUOTES or len(text) > LARGE_MODULE:
        return
    tree = _parse(text)
    if tree is None:
        return
    found = [ast.literal_eval(expression.value) for expression in _docstrings(tree)]
    prose = [re.sub(r"(?m)^[ \t]+", "", doc).strip() for doc in found]
    yield from _cut("\n\n".join(doc for doc in prose if doc))


def web_code(text: str) -> Pieces:
    """JavaScript, CSS and HTML, minified lines broken at the ends of their statements."""
    broken = []
    for line in text.splitlines():
        if len(line) <= LONG_LINE:
            broken.append(line)
            continue
        statements = re.sub(r"([;{}])(?!\n)", r"\1\n", line).split("\n")
        broken.extend(s for s in statements if len(s) <= LONG_LINE)  # beyond: data, not code
    yield from _cut("\n".join(broken))


def arithmetic(seed: int = 0) -> Iterator[str]:
    """Endless worked sums, each document of one kind and size."""
    draw = random.Random(seed)
    signs: Mapping[str, Callable[[int, int], int]] = {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
    }
    while True:
        sign, digits = draw.choice(list(signs)), draw.randint(1, 4)
        rows = []
        for _ in range(draw.randint(40, 120)):
            a, b = draw.randrange(10**digits), draw.randrange(10**digits)
            rows.append(f"{a} {sign} {b} = {signs[sign](a, b)}\n")
        yield "".join(rows)


def descriptions(names: Iterable[str]) -> Iterator[str]:
    """The long descriptions of distributions, as on their package pages."""
    for name in names:
        if name in ROOTS:
            continue
        try:
            text = metadata.distribution(name).read_text("METADATA") or ""
        except metadata.PackageNotFoundError:
            continue
        # Parsed here: once `importlib_metadata` is imported, `metadata.metadata` gives its class,
        # whose payload is empty.
        payload = email.message_from_string(text).get_payload()
        for _, piece in zip(range(PIECES_OF_FILE), _cut(str(payload)), strict=False):
            if len(piece) >= 200:
                yield piece


def _is_licence(path: Path) -> bool:
    if path.suffix in (".py", ".pyc", ".so"):
        return False
    return bool(re.search(r"(?i)licen[cs]e|notice|copying|authors", path.name))


FILES: Mapping[str, tuple[Callable[[Path], bool], Callable[[str], Pieces]]] = {
    "python": (lambda path: path.suffix == ".py", python_code),
    "docstrings": (lambda path: path.suffix == ".py", docstrings),
    "headers": (lambda path: path.suffix in (".h", ".hpp", ".cuh"), _cut),
    "licences": (_is_licence, _cut),
    "web": (
        lambda path: path.suffix in (".js", ".css", ".html") and not _is_licence(path),
        web_code,
    ),
}
"""Domain → which files suit it, and the documents of one file's text."""
