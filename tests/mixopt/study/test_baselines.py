"""What a study has to beat: natural, uniform, or a team's own mixture, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mixopt.core.errors import StudyError
from mixopt.core.mixture import Mixture
from mixopt.corpus.shards import Corpus
from mixopt.study.baselines import baselines_of, resolve_baselines
from mixopt.study.locked import LOCKED, design_space, lock_settings
from mixopt.study.mixture_formats.base import Blend, DomainShare, mixture_format
from mixopt.study.settings import Study, load_study

NATURAL = Mixture.of({"web": 6, "code": 3, "books": 1})
WEIGHTS = {"web": 0.5, "code": 0.5}


def resolved(setting: Any, folder: Path = Path()) -> dict[str, Mixture]:
    return resolve_baselines(setting, NATURAL, folder)


def test_natural_and_uniform_are_words() -> None:
    assert resolved("natural") == {"natural": NATURAL}
    assert resolved("uniform") == {"uniform": Mixture.uniform(NATURAL.domains)}


def test_weights_alone_are_called_baseline_and_have_the_order_of_the_domains() -> None:
    assert resolved({"code": 0.5, "web": "50%"}) == {
        "baseline": Mixture(("web", "code", "books"), (0.5, 0.5, 0.0))
    }


def test_several_keep_their_order_and_names() -> None:
    found = resolved({"production": WEIGHTS, "last year": {"books": 1}, "natural": "natural"})
    assert list(found) == ["production", "last year", "natural"]
    listed = resolved(["uniform", {"production": WEIGHTS}, WEIGHTS, {"books": 1.0}])
    assert list(listed) == ["uniform", "production", "baseline", "baseline 2"]


@pytest.mark.parametrize("format", ["json", "csv"])
def test_what_export_writes_is_a_baseline_of_the_files_name(tmp_path: Path, format: str) -> None:
    shares = (
        DomainShare("web", 0.25, 25, 100, 1, "web.bin"),
        DomainShare("code", 0.75, 75, 100, 1, "code.bin"),
    )
    blend = Blend("other", "recommended", 100, 0, "hash", "uint16", shares)
    file = tmp_path / f"production.{format}"
    file.write_text(mixture_format(format).text(blend))
    expected = Mixture(NATURAL.domains, (0.25, 0.75, 0.0))
    assert resolved(file.name, tmp_path) == {"production": expected}


@pytest.mark.parametrize(
    "text",
    [
        '{"web": 0.25, "code": 0.75}',
        '{"mixture": {"web": 0.25, "code": 0.75}, "promoted": "x"}',
        "run,web,code,note\np0001,0.25,0.75,ours\n",
        "mixture.web;mixture.code\n0.25;0.75\n",
        "\ufeffdomain,weight\nweb,25%\ncode,75%\n",
    ],
)
def test_other_files_of_a_mixture_are_read_too(tmp_path: Path, text: str) -> None:
    (tmp_path / "ours.csv").write_text(text, encoding="utf-8")
    expected = Mixture(NATURAL.domains, (0.25, 0.75, 0.0))
    assert resolved({"ours": "ours.csv"}, tmp_path) == {"ours": expected}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("naturall", "'naturall' is neither natural nor uniform, nor a CSV or JSON file"),
        ({}, "is no baseline"),
        ([], "names no baseline"),
        (3, "3 is no baseline"),
        ({"web": 3}, "sum to 3"),
        ([[WEIGHTS]], "is no baseline"),
        ({"production": 3, "b": "b.csv"}, "production: 3 is no baseline"),
        ({"web": 0.6, "code": -0.4}, "code: -0.4 is no weight"),
        ({"natural": WEIGHTS}, "natural is the name of the natural mixture"),
        ({"recommended": WEIGHTS}, "is what another mixture of a study is called"),
        ({"projected natural": WEIGHTS}, "is what another mixture of a study is called"),
        ({"a/b": WEIGHTS}, "'a/b' is no name"),
        (["natural", "natural"], "two baselines are called 'natural'"),
        ({"web": 0.6, "code": 0.3}, "the weights sum to 0.9, not to 1"),
        ({"wep": 0.6, "code": 0.4}, "wep: there is no training domain 'wep'.*mean 'web'"),
        ("absent.csv", "absent.csv: cannot be read"),
    ],
)
def test_a_setting_that_is_none_is_refused(setting: Any, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        resolved(setting)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no mixture"),
        ('{"web": {}}', "web: {} is no weight"),
        ("web,code\n", "holds no mixture"),
        ("a,b\n1,2\n", ":1: has no column of a training domain"),
        ("web,code\n0.5\n", ":2: there are 1 cells under 2 columns"),
        ("web,code\n0.5,x\n", ":2: code: 'x' is no weight"),
        ("web,code\n0.5,0.1\n", ":2: the weights sum to 0.6"),
        ("web,code\n0.5,0.5\n0.4,0.6\n", "holds 2 mixtures"),
        ("domain,weight\nweb,0.5\nweb,0.5\n", ":3: the domain 'web' is there twice"),
        ("domain,weight\nweb,0.5\n\nkode,0.5\n", ":4: kode: there is no training domain"),
        ("domain,weight\nweb,nan\ncode,1\n", ":2: web: nan is no weight"),
    ],
)
def test_a_file_that_is_none_is_refused_by_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "ours.csv").write_text(text)
    with pytest.raises(StudyError, match=f"ours.csv.*{message}"):
        resolved("ours.csv", tmp_path)


def study_of(folder: Path, corpus: Corpus, baseline: Any = None, **more: Any) -> Study:
    settings = {"name": "demo", "corpus": str(corpus.path), "objective": {"notes": 1}}
    settings |= {"space": {"max_epochs": None, **more.pop("space", {})}, **more}
    if baseline is not None:
        settings["baseline"] = baseline
    (folder / "study.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return load_study(folder / "study.yaml")


def test_a_study_names_line_and_key_of_a_wrong_weight(tmp_path: Path, text_corpus: Corpus) -> None:
    study = study_of(tmp_path, text_corpus, {"ours": {"law": 0.5, "cod": 0.5}})
    with pytest.raises(StudyError, match=r"study\.yaml:10: baseline\.ours\.cod: .*mean 'code'"):
        study.mixture_space(text_corpus)
    with pytest.raises(StudyError, match=r"study\.yaml:7: baseline: 'nothing' is neither"):
        study_of(tmp_path, text_corpus, "nothing")


def test_a_file_is_looked_for_beside_the_study(tmp_path: Path, text_corpus: Corpus) -> None:
    study = study_of(tmp_path, text_corpus, "ours.json")
    with pytest.raises(StudyError, match=f"^{tmp_path}/ours.json: cannot be read"):
        study.baselines(text_corpus)
    (tmp_path / "ours.json").write_text(json.dumps({"law": 1}))
    assert study.baselines(text_corpus)["ours"].as_dict() == {"law": 1, "code": 0, "prose": 0}


def test_a_study_that_names_natural_has_the_design_of_one_that_names_nothing(
    tmp_path: Path, text_corpus: Corpus
) -> None:
    bare, named = study_of(tmp_path, text_corpus), study_of(tmp_path, text_corpus, "natural")
    spaces = [study.mixture_space(text_corpus) for study in (bare, named)]
    assert spaces[0] == spaces[1]
    assert bare.initial_design(spaces[0]) == named.initial_design(spaces[1])


def test_the_design_begins_with_the_baseline_and_lies_around_it(
    tmp_path: Path, text_corpus: Corpus
) -> None:
    study = study_of(tmp_path, text_corpus, {"law": 0.1, "code": 0.8, "prose": 0.1})
    space = study.mixture_space(text_corpus)
    design = study.initial_design(space)
    assert design[0].as_dict() == pytest.approx({"law": 0.1, "code": 0.8, "prose": 0.1})
    assert design[1].as_dict() == pytest.approx(dict.fromkeys(text_corpus.domains, 1 / 3))
    usual = study_of(tmp_path, text_corpus)
    around_natural = usual.initial_design(usual.mixture_space(text_corpus))
    assert np.mean([m["code"] for m in design]) > 0.1 + np.mean([m["code"] for m in around_natural])


def test_a_domain_that_the_baseline_leaves_out_is_explored_all_the_same(
    tmp_path: Path, text_corpus: Corpus
) -> None:
    study = study_of(tmp_path, text_corpus, {"law": 0.5, "code": 0.5})
    design = study.initial_design(study.mixture_space(text_corpus))
    assert design[0]["prose"] == 0
    assert sum(mixture["prose"] > 0.05 for mixture in design[2:]) >= 4


def test_a_penalty_from_a_baseline_without_a_domain_is_refused(
    tmp_path: Path, text_corpus: Corpus
) -> None:
    study = study_of(tmp_path, text_corpus, {"law": 0.5, "code": 0.5}, space={"kl_penalty": 0.1})
    with pytest.raises(StudyError, match=r"space\.kl_penalty: the baseline has nothing of prose"):
        study.mixture_space(text_corpus)


def test_the_baseline_may_change_and_the_design_stays(tmp_path: Path, text_corpus: Corpus) -> None:
    first = study_of(tmp_path, text_corpus, {"law": 0.6, "code": 0.3, "prose": 0.1})
    designed = first.initial_design(first.mixture_space(text_corpus))
    lock_settings(first, text_corpus)
    for other in ("natural", {"law": 0.1, "code": 0.1, "prose": 0.8}):
        later = study_of(tmp_path, text_corpus, other)
        lock_settings(later, text_corpus)
        space = later.mixture_space(text_corpus)
        assert later.initial_design(design_space(later, space)) == designed
        assert space.reference != design_space(later, space).reference


def test_a_study_begun_without_the_key_keeps_its_design_too(
    tmp_path: Path, text_corpus: Corpus
) -> None:
    bare = study_of(tmp_path, text_corpus)
    lock_settings(bare, text_corpus)
    assert "baseline" not in json.loads((bare.home / LOCKED).read_text())
    later = study_of(tmp_path, text_corpus, "uniform")
    lock_settings(later, text_corpus)
    space = bare.mixture_space(text_corpus)
    assert design_space(later, later.mixture_space(text_corpus)) == space


def test_names_are_known_before_a_file_is_read() -> None:
    assert [it.name for it in baselines_of(["production.csv", "natural"])] == [
        "production",
        "natural",
    ]
