"""`mixopt export STUDY --mixture FORMAT`: the chosen mixture for another trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mixopt.core.errors import StudyError
from mixopt.core.formatting import count
from mixopt.io import files
from mixopt.pipelines.study.transfer import require_transfer_to_leave
from mixopt.pipelines.views.console import make_error_console
from mixopt.study.mixture_export import blend_of
from mixopt.study.mixture_formats.base import Blend, MixtureFormat, mixture_format
from mixopt.study.records import read_verdict
from mixopt.study.settings import load_study


def write_mixture(path: Path, format: str, out: Path | None, paths: Sequence[str] = ()) -> None:
    """Write the mixture of the study at `path` to the file `out`, or print it.

    What the mixture is, and which paths are still missing, goes to stderr.

    Args:
        path: the study file.
        format: name of the format.
        out: None prints it.
        paths: `DOMAIN=PATH`, where the trainer finds a domain.

    Raises:
        StudyError: the format or a domain is unknown, there is no verdict yet, or the study asks
            for a check at a larger size (select.at) that is missing or stopped it.
        CorpusError: the corpus is absent or broken.
        FileError: `out` cannot be written.
    """
    form = mixture_format(format)
    study = load_study(path)
    verdict = read_verdict(study.home)
    blend = blend_of(study, verdict, _parsed(paths))
    assert verdict is not None  # else there is no blend
    require_transfer_to_leave(study, verdict)
    text = form.text(blend)
    if out is None:
        print(text, end="")
    else:
        files.write_bytes(out, text.encode())
    _explain(blend, form, out)


def _explain(blend: Blend, form: MixtureFormat, out: Path | None) -> None:
    console = make_error_console()
    place = "" if out is None else f" in {out}"
    console.print(
        f"Mixture {blend.candidate!r} of {blend.study} for {count(blend.budget)} tokens{place}: "
        + ", ".join(f"{d.name} {d.weight:.1%} ({d.epochs:.2g} epochs)" for d in blend.used),
        soft_wrap=True,
    )
    unknown = form.unknown_paths(blend)
    if unknown:
        first = unknown[0]
        console.print(
            f"Replace {', '.join(f'PATH_OF_{name}' for name in unknown)}: {form.path_is} "
            f"(or give --path {first}=…)",
            soft_wrap=True,
        )


def _parsed(paths: Sequence[str]) -> dict[str, str]:
    """Domain → path of `DOMAIN=PATH` each.

    Raises:
        StudyError: one has another form.
    """
    found = {}
    for text in paths:
        domain, equals, path = text.partition("=")
        if not (domain and equals and path):
            raise StudyError("is no path", where=f"--path {text}", hint="Write DOMAIN=PATH")
        found[domain] = path
    return found
