"""The language bench in its smallest size: every block gives its figures, and goes on where it was stopped."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from benchmarks.blocks import NotMade
from benchmarks.language_sizes import PRESETS
from benchmarks.language_states import FAR, Teacher
from benchmarks.results import Found, read_bars
from tests.transfer_set.sparse_teacher import VOCABULARY, exact, teacher

from benchmarks import (
    language,
    language_asking,
    language_fidelity,
    language_gradient,
    language_kill,
    language_memory,
    language_quality,
    language_runs,
    language_steps,
)
from stillroom.models import device
from stillroom.recipe import Recipe
from stillroom.rows import Batch, Tokens
from stillroom.training.language_batches import WindowBatches
from stillroom.transfer_set.basis import fit_basis
from stillroom.transfer_set.fidelity import dense, fidelity
from stillroom.transfer_set.output_layer import mean_distribution
from stillroom.transfer_set.sparse_logits import Layout, decode, encode

SIZES = PRESETS["smoke"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts with the names of the real ones."""
    from benchmarks.language_tiny import TEXT

    folder = tmp_path_factory.mktemp("data")
    articles = "".join(f" \n = Title {place} = \n \n {' '.join(TEXT)} \n" for place in range(8))
    for name in ("wikitext2/valid.txt", "wikitext2/test.txt", "tinyshakespeare/input.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(articles)
    (folder / "gsm8k").mkdir()
    line = json.dumps({"question": TEXT[0], "answer": TEXT[1]})
    (folder / "gsm8k" / "test.jsonl").write_text(f"{line}\n" * 10)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def test_every_bar_belongs_to_a_bench_and_every_block_can_be_found() -> None:
    assert len(read_bars("language")) == 21
    settings = {language.BENCH.settings_of(name, SIZES) for name in language.BLOCKS}
    assert len(settings) == len(language.BLOCKS)
    assert language.BENCH.settings_of("kill", SIZES) == language.BENCH.settings_of("kill", replace(SIZES, draws=4))
    assert language.BENCH.settings_of("kill", SIZES) != language.BENCH.settings_of(
        "kill", replace(SIZES, random_kills=4)
    )


class Plain:
    """Stands for Liger's loss: KL with all logits, under the autocast that is on; it keeps what it was given."""

    given: ClassVar[list[tuple[torch.dtype, torch.dtype, bool]]] = []

    def __init__(self, **knobs: Any) -> None:
        pass

    def __call__(self, hidden_PH: Any, weight_VH: Any, teacher_PG: Any, weight_VG: Any, label_P: Any) -> torch.Tensor:
        self.given.append((teacher_PG.dtype, weight_VG.dtype, torch.is_autocast_enabled("cpu")))
        log_p, log_q = (
            (one @ other.T).float().log_softmax(1) for one, other in ((hidden_PH, weight_VH), (teacher_PG, weight_VG))
        )
        return (log_q.exp() * (log_q - log_p)).sum(1).mean()


@pytest.mark.parametrize("native", [False, True])
def test_steps_give_the_worse_ratio_of_both_number_formats(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gains_from_bfloat16", lambda name: native)
    monkeypatch.setattr(device, "WORTHWHILE_PARAMETERS", 0)
    monkeypatch.setattr(language_steps, "liger", lambda: (Plain, "9", ""))
    Plain.given.clear()
    row = language_steps.steps(SIZES)
    assert set(row.bars) == set(language_steps.PAIRS)
    formats = ["float32", "bfloat16"] if native else ["float32"]
    tables = [row.tables[name] for name in ("steps", "steps-default") if name in row.tables]
    assert [table.title.rpartition(" ")[2] for table in tables] == formats
    for name, bar in row.bars.items():
        told = [float(found) for found in re.findall(r"(\d+\.\d+) in ", bar.n)]
        assert bar.value == pytest.approx(max(told), abs=1e-3)
        assert [dtype in bar.n for dtype in formats] == [True] * len(formats)
        assert len(told) == len(formats)
        assert (f"the teacher in {formats[-1]} on both sides" in bar.n) == (name == "lm-live-vs-liger")
    assert all(f"teacher computes in {formats[-1]} beside both" in table.note for table in tables)
    assert {one[:2] for one in Plain.given} == {(getattr(torch, formats[-1]),) * 2}
    assert {one[2] for one in Plain.given} == ({False, True} if native else {False})
    assert "epochs to pay back" in row.tables["payback"].columns


def test_without_liger_its_bar_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_steps, "liger", lambda: (None, "", "not run: nowhere"))
    row = language_steps.steps(SIZES)
    assert row.bars["lm-live-vs-liger"] == Found(None, why="not run: nowhere")
    assert "not run: nowhere" in row.tables["steps"].note


def test_liger_is_left_out_with_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(language_steps.LIGER, str(tmp_path))
    assert "names no folder with liger_kernel" in language_steps.liger()[2]
    (tmp_path / "liger_kernel").mkdir()
    (tmp_path / "liger_kernel" / "chunked_loss.py").write_text("raise ImportError('no triton')\n")
    assert "no triton" in language_steps.liger()[2]


ARMS: dict[str, Callable[[language_steps.Bench], language_steps.Step]] = {
    "ce": lambda bench: bench.ce(),
    "labels": lambda bench: bench.labels(),
    "stored": lambda bench: bench.stored("sample"),
    "live": lambda bench: bench.live(),
}


def test_all_arms_of_a_step_learn_from_the_same_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[torch.Tensor] = []

    class Watched(WindowBatches):
        def __call__(self, number: int) -> Batch:
            batch = super().__call__(number)
            assert isinstance(batch.input, Tokens)
            given.append(batch.input.ids_BT.clone())
            return batch

    monkeypatch.setattr(language_steps, "WindowBatches", Watched)
    seen = {}
    for name, step_of in ARMS.items():
        bench = language_steps.Bench(SIZES.shape, tmp_path / name)
        step = step_of(bench)
        given.clear()
        for _ in range(bench.number):
            step()
        assert len(given) == bench.number > 1
        assert all(ids_BT.shape == (SIZES.shape.rows, SIZES.shape.tokens) for ids_BT in given)
        seen[name] = torch.stack(given)
    assert all(torch.equal(seen["ce"], other) for other in seen.values())
    assert not torch.equal(seen["ce"][0], seen["ce"][1])


def test_memory_is_the_growth_of_a_process(tmp_path: Path) -> None:
    assert language_memory.growth("prepare-hidden", tmp_path, SIZES.shape) == 0
    wide = replace(SIZES.shape, vocabulary=20_000)
    assert language_memory._child("labels", str(tmp_path / "child"), wide) > 0.004
    assert language_memory.growth("hidden", tmp_path, SIZES.shape) > -1e-4  # a page or two come and go by themselves


def test_gradients_are_those_of_plain_float64() -> None:
    found = language_gradient.gradient(SIZES).bars["lm-gradient"].value
    assert found is not None
    assert 0 < found < 1e-5


def test_a_wrong_gradient_is_seen() -> None:
    def wrong(draw: language_gradient.Draw) -> tuple[language_gradient.Loss, language_gradient.Loss]:
        ours, reference = language_gradient.FORMS["live, forward"](draw)
        return lambda hidden_PH, head: 1.01 * ours(hidden_PH, head), reference

    assert language_gradient.errors(language_gradient.Draw(SIZES.shape, 0), wrong)[0] > 5e-3


def test_a_tail_of_the_corpus_mean_is_between_a_bucket_and_a_hidden_tail() -> None:
    hidden_PG, head, forced_P = teacher(300)
    mean_V = mean_distribution(hidden_PG, head)
    fitted = fit_basis(hidden_PG, *head, tail_bytes=6)
    found = {}
    for tail, basis in (("hidden", fitted), ("bucket", None)):
        layout = Layout.of(VOCABULARY, 4, tail, 6)  # type: ignore[arg-type]
        found[tail] = decode(layout, basis, encode(layout, basis, hidden_PG, head, forced_P))
    shaped = language_fidelity.shaped_tail(found["bucket"], mean_V)
    kls = [fidelity(hidden_PG, head, kept)["kl"].mean() for kept in (found["hidden"], shaped, found["bucket"])]
    assert kls == sorted(kls)
    # The corpus mean, position by position: what is outside the head, rescaled.
    q_V = exact(hidden_PG, head).exp().mean(0).index_fill(0, shaped.ids_PK[3], 0.0)
    q_V = q_V / q_V.sum() * shaped.tail_log_mass_P[3].double().exp()
    q_V[shaped.ids_PK[3]] = shaped.log_p_PK[3].double().exp()
    torch.testing.assert_close(dense(shaped, VOCABULARY)[3].double().exp(), q_V, rtol=1e-4, atol=1e-9)


def test_fidelity_compares_formats_of_equal_bytes(base: Path, data: Path) -> None:
    row = language_fidelity.measure(SIZES, base, data)
    assert set(row.bars) == {"lm-bytes", "lm-fidelity-kl", "lm-fidelity-equal-bytes"}
    assert row.bars["lm-fidelity-kl"].ci95 is not None
    for start in range(0, len(row.tables["fidelity"].rows), 4):
        sizes = [line[0] for line in row.tables["fidelity"].rows[start : start + 4]]
        assert max(sizes) == sizes[0]
        assert min(sizes) > sizes[0] - 4
    elsewhere = row.tables["elsewhere"]
    assert elsewhere.columns == ["text", "kept", "KL, nats", "total variation", "bias", "positions"]
    for place in ("wikitext2/test.txt", *FAR):
        figures = {line[1]: line[2:5] for line in elsewhere.rows if line[0] == place}
        assert list(figures) == list(language_fidelity.ALL)
        assert all(0 < variation < 1 and bias >= 0 for _, variation, bias in figures.values())
        assert figures[language_fidelity.SAMPLES][0] == "infinite"
    drawn = (base / language_fidelity.PLOT.name).read_text()
    assert "prefers-color-scheme:dark" in drawn
    assert drawn.count("<polyline") >= 7


def test_states_are_computed_once_and_go_on(base: Path, data: Path) -> None:
    teacher = Teacher(SIZES, base, data)
    before = np.array(teacher.test().hidden_NTG)
    told = teacher.folder / "test.done"
    told.write_text("0")
    after = teacher.test()
    assert np.array_equal(before, after.hidden_NTG)
    hidden_PG, target_P, document_P = after.positions()
    assert len(hidden_PG) == len(target_P) == len(document_P) == after.scored_NT.sum()
    assert not after.scored_NT[:, : teacher.skip].any()


def test_asking_is_beside_a_bare_forward_pass(base: Path, data: Path) -> None:
    found = language_asking.asking(SIZES, base, data).bars["lm-asking"].value
    assert found is not None
    assert found > 0


@pytest.mark.kill
def test_killed_runs_end_byte_equal(tmp_path: Path) -> None:
    found = language_kill.kill(SIZES, tmp_path).bars["lm-kill"]
    assert found.value == 1
    assert found.n.startswith("2 of ")


def test_quality_pairs_seeds_and_keeps_finished_students(base: Path, data: Path) -> None:
    row = language_quality.quality(SIZES, base, data)
    found = row.bars["lm-stored-quality"]
    assert found.ci95 is not None
    assert found.value == found.ci95[1]
    assert next(line[2] for line in row.tables["quality"].rows) == "+0.0000"
    kept = next(base.glob("quality-*.json"))
    before = kept.read_text()
    assert language_quality.quality(SIZES, base, data).bars["lm-stored-quality"] == found
    assert kept.read_text() == before


def test_intervals_take_whole_documents() -> None:
    values = {"a": np.array([1.0, 1.0, 3.0])}
    draws = language_fidelity.over_documents(values, np.array([4, 4, 9]))["a"]
    assert set(np.round(draws, 6)) == {1.0, round(5 / 3, 6), 3.0}


def test_a_finished_run_is_read_and_a_missing_one_named(tmp_path: Path) -> None:
    run = tmp_path / "language"
    run.mkdir()
    figure = {"mean": 1.2, "ci95": [1.1, 1.3]}
    card = {
        "gap_recovered": {"mean": 0.4, "ci95": [0.3, 0.5]}, "seeds": [0, 1], "rows": {"train": 100},
        "models": {"student": {"bits_per_byte": figure, "parameters": 7}},
    }  # fmt: skip
    (run / "scorecard.json").write_text(json.dumps(card))
    row = language_runs.language(SIZES, tmp_path, tmp_path)
    assert row.bars["lm-control-gain"].value == 0.4
    assert row.tables["language"].rows == [["student", "1.2", "1.1 to 1.3", "7"]]
    card["gap_recovered"] = {"absent": "one seed"}
    (run / "scorecard.json").write_text(json.dumps(card))
    assert language_runs.language(SIZES, tmp_path, tmp_path).bars["lm-control-gain"].why == "one seed"
    with pytest.raises(NotMade, match=r"no recipes/nobody\.yaml"):
        language_runs.finished("nobody", (), SIZES, tmp_path)


def test_what_an_eight_bit_student_keeps_has_an_interval_around_it() -> None:
    roll = np.random.default_rng(0)
    low, high = language_runs._keeps_interval(roll.random((3, 400)) < 0.85, roll.random(400) < 0.9)
    assert low < 0.7 / 0.8 < high


def forms(*given: tuple[str, float, float, float]) -> list[language_runs.Form]:
    """Students of this accuracy, so much smaller and faster, beside a teacher of 0.9."""
    right_N = np.arange(1000) < 900
    return [
        language_runs.form(
            words, np.stack([np.arange(1000) < 1000 * accuracy]), right_N, smaller, (faster, [faster, faster])
        )
        for words, accuracy, smaller, faster in given
    ]


def test_of_the_exported_forms_that_are_small_and_fast_enough_the_better_one_counts() -> None:
    whole, small = ("in float32", 0.88, 8.0, 10.0), ("in eight bits", 0.86, 30.0, 12.0)
    found = language_runs.best(forms(whole, small), "1 seed")
    assert found.value == pytest.approx(0.38 / 0.4)
    assert found.why == "in float32 8.0 times smaller and 10.0 times faster (batch 1)"
    large, slow = ("in float32", 0.88, 7.4, 10.0), ("in float32", 0.88, 8.0, 8.9)
    for other in (large, slow):
        found = language_runs.best(forms(other, small), "1 seed")
        assert found.value == pytest.approx(0.36 / 0.4)
        assert found.why.startswith("in eight bits")
    found = language_runs.best(forms(large, slow), "1 seed")
    assert found.value is None
    assert "7.4 times smaller and 10.0 times faster" in found.why
    assert "8.0 times smaller and 8.9 times faster" in found.why


def test_the_smaller_ratio_of_both_batches_is_the_bar() -> None:
    found = language_runs.slowest({1: (2.0, [1.9, 2.1]), 32: (1.5, [1.4, 1.6])})
    assert (found.value, found.ci95) == (1.5, [1.4, 1.6])
    assert found.n == "9 rounds, batch 1 and 32; this is batch 32"
    assert language_runs.slowest({1: (1.2, [1.1, 1.3]), 32: (1.5, [1.4, 1.6])}).value == 1.2


def test_references_of_gradients_are_distributions() -> None:
    draw = language_gradient.Draw(SIZES.shape, 1)
    mass_P = language_gradient.whole(draw.kept("hidden")).exp().sum(1)
    assert torch.allclose(mass_P, torch.ones_like(mass_P), atol=1e-9)


def test_what_a_part_of_the_recipe_is_worth(tmp_path: Path) -> None:
    """A run that has its arms is read; the recipe that would make them differs from the shipped one in just that part."""
    assert not language.BLOCKS["ablations"].wanted(SIZES)
    sizes, run = replace(SIZES, ablations=True), tmp_path / "distilbert_sst2"
    run.mkdir()
    figure = {"mean": 0.9, "ci95": [0.88, 0.92]}
    apart = {f"{arm}-student": {"accuracy": {"mean": -0.01, "ci95": [-0.02, 0.0]}} for arm in language_runs.ABLATIONS}
    models = {name: {"accuracy": figure} for name in ("student", *language_runs.ABLATIONS)}
    card = {"models": models, "differences": apart, "seeds": [0, 1], "rows": {"train": 100}}
    (run / "scorecard.json").write_text(json.dumps(card))
    table = language_runs.ablations(sizes, tmp_path).tables["ablations"]
    assert [row[0] for row in table.rows] == [
        "the whole recipe", "without soft targets", "without hidden layers", "from random weights",
    ]  # fmt: skip
    assert table.rows[1][3:] == ["-1", "-2 to 0", -2.96]
    file = language_runs.RECIPES / "distilbert_sst2.yaml"
    whole = Recipe.load(file)
    arms = {arm: made(whole.to_tree()["objectives"]) for arm, (_, made, _) in language_runs.ABLATIONS.items()}
    recipe = Recipe.load(file, [f"arms.{arm}={json.dumps(sections)}" for arm, sections in arms.items()])
    assert [one.kind for one in recipe.arm("no_soft").objectives] == ["hidden", "hard_label"]
    assert [one.kind for one in recipe.arm("no_hidden").objectives] == ["soft_target", "hard_label"]
    started = recipe.arm("random_start")
    assert started.student == whole.student.model_copy(update={"weights": "random"})
    assert started.objectives == whole.objectives
