"""Ensembles of language models: asked one by one, merged from what is kept, judged by the mean of their distributions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tests.models.tiny_models import byte_pairs, tiny

import stillroom
from command_line import events
from rehearsals import rehearsed_once
from stillroom.errors import ModelError, RecipeError, StillroomError
from stillroom.models.device import Device
from stillroom.models.language import LanguageModel, logits
from stillroom.models.mixed import MixedModel
from stillroom.objectives.fused import fused_dense
from stillroom.rows import Head, MixedHead, SparseTargets, Splits, Tokens
from stillroom.rundir import read_json
from stillroom.transfer_set.fidelity import dense, fidelity
from stillroom.transfer_set.merging import merge
from stillroom.transfer_set.recording import opened
from stillroom.transfer_set.sparse_logits import decode
from stillroom.transfer_set.store import Kept, open_kept
from tiny_language import causal, write_model

SOFT = {"kind": "soft_target", "temperature": 1}
MEMBERS = ("llama", "gpt2", "qwen3")
MEANS = ("arithmetic", "geometric")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny text and three teachers of different widths."""
    folder = tmp_path_factory.mktemp("ensemble")
    causal(folder)
    write_model(folder / "gpt2", "gpt2", tokenizer=byte_pairs(300), layers=1, n_embd=24)
    write_model(folder / "qwen3", "qwen3", tokenizer=byte_pairs(300), layers=1)
    return folder


def member(home: Path, name: str) -> dict[str, Any]:
    return {"kind": "transformers", "model": str(home / name), "task": "causal"}


def recipe(home: Path, names: tuple[str, ...] = MEMBERS[:2], mean: str = "arithmetic", **sections: Any) -> Any:
    teacher = {"kind": "ensemble", "mean": mean, "members": [member(home, name) for name in names]}
    student = {"kind": "shrink", "from": str(home / "llama"), "layers": 1}
    return causal(home, **{"teacher": teacher, "student": student, **sections})


def calls(run: Path) -> int:
    return sum(event["calls"] for event in events(run, "asked"))


def kept_of(run: Path) -> Kept:
    return open_kept(run / "transfer_set" / read_json(run / "transfer_set" / "asked.json")["answers"])


def kept_members(run: Path) -> list[Kept]:
    kept = [open_kept(path.parent) for path in sorted((run / "transfer_set").glob("*/teacher.json"))]
    return [one for one in kept if one.header.kind == "transformers"]


def log_p(model: Any, ids: list[list[int]]) -> torch.Tensor:
    """Whole distributions in float64, by the library's own forward pass."""
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=torch.tensor(ids)).logits.double().log_softmax(2)
    return found


def mean_of(log_ps: list[torch.Tensor], shares: list[float], mean: str) -> torch.Tensor:
    if mean == "geometric":
        total = sum((share * one for share, one in zip(shares, log_ps, strict=True)), torch.zeros_like(log_ps[0]))
        return total.log_softmax(-1)
    return sum(
        (share * one.exp() for share, one in zip(shares, log_ps, strict=True)), torch.zeros_like(log_ps[0])
    ).log()


def models_of(home: Path, names: tuple[str, ...]) -> list[LanguageModel]:
    return [LanguageModel.load(home / name, "causal") for name in names]


# the mean itself


@pytest.mark.parametrize("mean", MEANS)
def test_the_mean_is_of_whole_distributions(mean: Any, home: Path) -> None:
    models, shares = models_of(home, MEMBERS), [0.5, 0.3, 0.2]
    mixed = MixedModel(models, shares, mean)
    ids = [[10, 20, 30, 40, 50], [60, 70, 80, 90, 100]]
    tokens = Tokens(torch.tensor(ids), torch.ones(2, 5, dtype=torch.bool))
    with torch.inference_mode():
        output = mixed.network(tokens)
        assert isinstance(output.head, MixedHead)
        assert output.hidden_BH is not None
        found = logits(output.hidden_BH, output.head).double().log_softmax(1)
    expected = mean_of([log_p(model.network.model, ids) for model in models], shares, mean).flatten(0, 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert mixed.parameters == sum(model.parameters for model in models)
    turned = MixedModel(models[::-1], shares[::-1], mean)
    assert turned.fingerprint == mixed.fingerprint != MixedModel(models, [0.3, 0.5, 0.2], mean).fingerprint


@pytest.mark.parametrize("mean", MEANS)
def test_what_the_mean_writes_is_its_likeliest_token_each_time(mean: Any, home: Path) -> None:
    models = models_of(home, MEMBERS)
    mixed = MixedModel(models, [1 / 3] * 3, mean)
    prompts = [[10, 20, 30], [40]]
    for prompt, written in zip(prompts, mixed.generate(prompts, 6), strict=True):
        ids = list(prompt)
        for token in written.ids:
            said = mean_of([log_p(model.network.model, [ids])[0, -1] for model in models], [1 / 3] * 3, mean)
            assert said[token] >= said.max() - 1e-4
            ids.append(token)
        assert len(written.ids) == 6 or written.finished
    drawn = mixed.generate(["the quick"] * 2, 8, temperature=1.0, seed=3)
    assert [one.ids for one in mixed.generate(["the quick"] * 2, 8, temperature=1.0, seed=3)] == [
        one.ids for one in drawn
    ]
    with pytest.raises(StillroomError, match="a prompt of 60 tokens and 8 to write"):
        mixed.generate([[5] * 60], 8)


@pytest.mark.parametrize("heat", [1.0, 2.0])
@pytest.mark.parametrize("form", ["forward", "reverse", "jensen_shannon"])
@pytest.mark.parametrize("mean", MEANS)
def test_a_live_mean_gives_the_divergence_from_whole_distributions(mean: Any, form: Any, heat: float) -> None:
    torch.manual_seed(0)
    rows, vocabulary, widths, shares = 9, 53, (6, 10), (0.25, 0.75)
    layers = [torch.randn(vocabulary, width) for width in widths]
    heads = tuple(Head(layer, torch.randn(vocabulary), cap) for layer, cap in zip(layers, (None, 5.0), strict=True))
    hidden = [torch.randn(rows, width) for width in widths]
    student, weight = torch.randn(rows, 7, requires_grad=True), torch.randn(vocabulary, 7)
    loss = fused_dense(
        student,
        Head(weight),
        torch.cat(hidden, 1),
        MixedHead(heads, shares, mean),
        temperature=heat,
        form=form,
        chunk=4,
    )
    said = []
    for one, head in zip(hidden, heads, strict=True):
        assert head.bias_V is not None
        made = one.double() @ head.weight_VH.double().T + head.bias_V.double()
        said.append((made if head.soft_cap is None else head.soft_cap * (made / head.soft_cap).tanh()).log_softmax(1))
    log_q = (mean_of(said, list(shares), mean) / heat).log_softmax(1)
    exact = student.detach().double().requires_grad_()
    log_s = (exact @ weight.double().T / heat).log_softmax(1)
    middle = torch.logaddexp(log_q, log_s) - np.log(2)

    def kl(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return (left.exp() * (left - right)).sum()

    both = (kl(log_q, middle) + kl(log_s, middle)) / 2
    wanted = heat**2 * {"forward": kl(log_q, log_s), "reverse": kl(log_s, log_q), "jensen_shannon": both}[form]
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    (found,), (true,) = torch.autograd.grad(loss, [student]), torch.autograd.grad(wanted, [exact])
    assert (found - true).abs().max() <= 1e-5 * true.abs().max()


# whole runs


@pytest.fixture(scope="module")
def whole(home: Path) -> Any:
    """A finished run of two teachers, and of all three in an arm."""
    three = {"kind": "ensemble", "members": [member(home, name) for name in MEMBERS]}
    return stillroom.distill(recipe(home, name="two", arms={"three": {"teacher": three}}), home / "two")


def test_a_third_member_is_asked_alone(whole: Any) -> None:
    asked = [event for event in events(whole.path, "asked") if event["calls"]]
    by_teacher: dict[str, int] = {}
    for event in asked:
        by_teacher[event["teacher"]] = by_teacher.get(event["teacher"], 0) + event["calls"]
    assert len(by_teacher) == 3
    assert len(set(by_teacher.values())) == 1
    assert len(kept_members(whole.path)) == 3
    before = calls(whole.path)
    stillroom.distill(stillroom.Recipe.load(whole.path / "recipe.yaml"), whole.path)
    assert calls(whole.path) == before


def test_the_report_judges_by_the_mean(whole: Any, home: Path) -> None:
    card, models = whole.scorecard, models_of(home, MEMBERS[:2])
    teacher = card["models"]["teacher"]
    assert teacher["parameters"] == sum(model.parameters for model in models)
    assert teacher["size_bytes"] == sum((home / name / "model.safetensors").stat().st_size for name in MEMBERS[:2])
    rows = windows(home).test.raw
    nats, count = 0.0, 0
    for ids_T, target_T in zip(rows["ids"], rows["target"], strict=True):
        ids = [ids_T[ids_T >= 0].tolist()]
        said = mean_of([log_p(model.network.model, ids)[0] for model in models], [0.5, 0.5], "arithmetic")
        for place in np.flatnonzero(target_T >= 0).tolist():
            nats -= float(said[place, target_T[place]])
            count += 1
    assert teacher["nll"]["mean"] == pytest.approx(nats / count, rel=1e-4)
    kept = card["transfer_set"]
    assert kept["layout"]["head"] == 16
    assert kept["tail"] == "sample"
    assert kept["members_bytes_per_token"] == sum(one.header.layout["record_bytes"] for one in kept_members(whole.path)[:2])  # type: ignore[index]  # fmt: skip
    assert kept["bytes"] > (kept["members_bytes_per_token"] + kept["bytes_per_token"]) * kept["positions"]
    fidelity_told = kept["fidelity"]["by_source"]
    assert set(fidelity_told) == {"train", "validation", "test"}
    assert all(0 < one["total_variation"] < 1 and "kl" not in one for one in fidelity_told.values())
    page = (whole.path / "report.html").read_text()
    assert "an ensemble of 2" in page
    assert "nobody compared them" not in page


def windows(home: Path) -> Splits:
    """The windows of the tiny text."""
    from stillroom.kinds import parse
    from stillroom.models.text import tokenizer_at
    from stillroom.questions.windows import windows as cut

    source = parse("questions", causal(home)["questions"])
    return cut(source.build([home]), tokenizer_at(home / "llama"), 32, context=64)


def test_merged_answers_are_made_of_the_members(whole: Any) -> None:
    """Position by position, whatever shards they were kept in; and nearer to the true mean than chance."""
    merged = kept_of(whole.path)
    assert merged.header.kind == "ensemble"
    assert merged.header.layout is not None
    assert set(merged.header.licences) == {"teacher", "teacher.0", "teacher.1"}
    layout, _ = opened(merged.folder, merged.header.layout)
    # In the order they were asked: the third is the arm's.
    parts = sorted(kept_members(whole.path), key=lambda one: (one.folder / "teacher.json").stat().st_mtime_ns)[:2]
    with pa.memory_map(str(merged.folder / "000000" / "keys.arrow")) as source:
        keys = pa.ipc.open_file(source).read_all()["key"].to_pylist()
    key_N = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), 16)
    every = np.arange(len(key_N))
    targets: list[SparseTargets] = []
    for one in parts:
        assert one.header.layout is not None
        form, fitted = opened(one.folder, one.header.layout)
        targets.append(decode(form, fitted, one.position_reader(key_N).take(every)))
    found = decode(layout, None, merged.position_reader(key_N).take(every))
    expected = mean_of([dense(one, layout.vocabulary).double() for one in targets], [0.5, 0.5], "arithmetic")
    top = expected.topk(layout.head, 1)
    assert (found.ids_PK == top.indices).double().mean() > 0.999
    assert (found.log_p_PK.exp() - top.values.exp()).abs().max() < 0.02
    again = merge(layout, targets, seed_P=np.zeros(len(found.ids_PK), np.uint64))
    assert (decode(layout, None, again).ids_PK == found.ids_PK).double().mean() > 0.999


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("knobs", [{"tail": "bucket"}, {"tail_bytes": 24}, {"live": True}])
def test_equal_teachers_have_one_mean_and_a_student_that_is_it_nothing_to_learn(
    knobs: dict[str, Any], mean: str, home: Path, tmp_path: Path
) -> None:
    objectives = [{**SOFT, **({"temperature": 2, "divergence": "jensen_shannon"} if "live" in knobs else {})}]
    tree = recipe(
        home, ("llama", "llama"), mean, name="same", transfer_set=knobs, objectives=objectives,
        student={"kind": "pretrained", "from": str(home / "llama"), "task": "causal"},
        training={"epochs": 1, "batch_size": 64, "learning_rate": 1e-12},
    )  # fmt: skip
    run = stillroom.distill(tree, tmp_path / "run", until="train")
    lost = read_json(run.path / "student" / "history.json")["curve"][0]["loss"]
    bar = {"live": 1e-5, "tail": 0.02, "tail_bytes": 0.5}[next(iter(knobs))]
    assert -bar < lost < bar
    asked = 0 if "live" in knobs else len(windows(home).train)
    assert calls(run.path) == asked, "one teacher twice is asked once"


def test_hard_answers_of_a_live_mean(home: Path, tmp_path: Path) -> None:
    objectives = [SOFT, {"kind": "hard_label", "from": "teacher"}, {"kind": "trace", "weight": 0.5}]
    tree = recipe(home, name="live", transfer_set={"live": True}, objectives=objectives)
    run = stillroom.distill(tree, tmp_path / "run")
    assert {"teacher", "student", "control"} <= set(run.scorecard["models"])
    assert run.scorecard["models"]["student"]["kl_to_teacher"]["mean"] > 0


def test_masked_models_have_a_mean_too(home: Path, tmp_path: Path) -> None:
    for name in ("bert", "distilbert"):
        write_model(tmp_path / name, name, layers=1)
    questions = {**causal(home)["questions"], "augment": [{"kind": "mask", "share": 0.3}], "views": 2}
    members = [
        {"kind": "transformers", "model": str(tmp_path / name), "task": "masked"} for name in ("bert", "distilbert")
    ]
    tree = causal(
        home, name="masked", questions={**questions, "window": 24}, teacher={"kind": "ensemble", "members": members},
        student={"kind": "pretrained", "from": str(tmp_path / "distilbert"), "task": "masked"},
    )  # fmt: skip
    run = stillroom.distill(tree, tmp_path / "run")
    assert run.scorecard["architecture"] == "masked"
    assert calls(run.path) == 4 * run.scorecard["rows"]["train"], "two teachers, two views"


def test_fidelity_is_asked_of_each_member(home: Path, tmp_path: Path) -> None:
    tree = recipe(home, name="close", transfer_set={"tail_bytes": 2, "fidelity": {"kl": 0.05}})
    run = stillroom.distill(tree, tmp_path / "run", until="ask")
    grown = [one.header.layout["tail_bytes"] for one in kept_members(run.path)]  # type: ignore[index]
    assert max(grown) > 2
    tree["transfer_set"] = {"tail": "bucket", "fidelity": {"kl": 1e-9}}
    with pytest.raises(ModelError, match="nats a position, and 1e-09 is asked for"):
        stillroom.distill({**tree, "name": "far"}, tmp_path / "far", until="ask")


def test_fidelity_is_measured_against_the_mean_itself(home: Path) -> None:
    """Not against what the members' records make of it."""
    models, device = models_of(home, MEMBERS[:2]), Device()
    mixed = MixedModel(models, [0.5, 0.5], "arithmetic")
    assert mixed.device == device
    tokens = Tokens(torch.arange(20, 40)[None], torch.ones(1, 20, dtype=torch.bool))
    with torch.inference_mode():
        output = mixed.network(tokens)
    ids = [list(range(20, 40))]
    exact = mean_of([log_p(model.network.model, ids)[0] for model in models], [0.5, 0.5], "arithmetic")
    top = exact.topk(4, 1)
    tail = (1 - top.values.exp().sum(1)).log()
    zero = torch.zeros(20)
    kept = SparseTargets(top.indices, top.values.float(), tail.float(), zero, zero, "bucket")
    told = fidelity(output.hidden_BH, output.head, kept)
    dense_PV = dense(kept, 300).double()
    torch.testing.assert_close(
        torch.tensor(told["kl"]), (exact.exp() * (exact - dense_PV)).sum(1), rtol=1e-3, atol=1e-4
    )


# what cannot work


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        (
            {"objectives": [{**SOFT, "temperature": 2}]},
            "is kept as a sample, and a kept tail of kind sample does not tell",
        ),
        ({"objectives": [{**SOFT, "divergence": "reverse"}]}, "probabilities at divergence reverse (objectives.0)"),
        ({"objectives": [SOFT, {"kind": "hidden"}]}, "the objectives need hidden of the teacher"),
        ({"student": {"kind": "shrink", "layers": 1}}, "the student is to be cut out of the teacher"),
    ],
)
def test_what_a_mean_does_not_tell(sections: dict[str, Any], told: str, home: Path, tmp_path: Path) -> None:
    with pytest.raises(StillroomError) as error:
        stillroom.distill(recipe(home, **sections), tmp_path / "run")
    assert told in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_geometric_mean_of_samples_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a geometric mean of samples"):
        stillroom.distill(recipe(home, mean="geometric", transfer_set={"tail": "sample"}), tmp_path / "run")


def test_members_that_read_other_tokens(home: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "longer", "llama", tokenizer=byte_pairs(301), layers=1)
    tree = recipe(home)
    tree["teacher"]["members"][1] = {"kind": "transformers", "model": str(tmp_path / "longer"), "task": "causal"}
    told = r"the vocabularies differ in 1 tokens, first .* \(teacher.members.1, the first teacher's and this one's tokenizer\)"
    with pytest.raises(ModelError, match=told):
        stillroom.distill(tree, tmp_path / "run")


def test_members_of_another_width_or_task(home: Path, tmp_path: Path) -> None:
    from stillroom.models import pretrained

    reads = byte_pairs(300)
    pretrained.save(tiny("llama", reads, layers=1, vocab_size=320), reads, (tmp_path / "wide"))
    tree = recipe(home)
    tree["teacher"]["members"][1] = {"kind": "transformers", "model": str(tmp_path / "wide"), "task": "causal"}
    with pytest.raises(ModelError, match=r"it gives 320 logits a position and the first teacher 300"):
        stillroom.distill(tree, tmp_path / "run")
    tree["teacher"]["members"][1] = {"kind": "transformers", "model": str(home / "llama"), "task": "masked"}
    with pytest.raises(RecipeError, match="should all be classifiers, all causal or all masked"):
        stillroom.distill(tree, tmp_path / "run")


def test_check_counts_every_teacher_and_what_they_say_together(home: Path) -> None:
    from stillroom import flow

    with rehearsed_once([]):
        two, one = (
            flow.plan(stillroom.Recipe.from_tree(tree), home)["figures"] for tree in (recipe(home), causal(home))
        )
    assert two["teacher calls"] == 2 * one["teacher calls"]
    assert two["teacher tokens"] == 2 * one["teacher tokens"]


def test_teachers_that_the_run_trains_itself(home: Path, tmp_path: Path) -> None:
    config = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
    model = {"kind": "transformers", "task": "causal", "config": config, "tokenizer": str(home / "llama")}
    trained = {"kind": "trained", "model": model, "epochs": 1, "batch_size": 8}
    tree = recipe(home, name="trained", teacher={"kind": "ensemble", "size": 2, "member": trained})
    run = stillroom.distill(tree, tmp_path / "run", until="train")
    weights = [(run.path / "teacher" / place / "model.safetensors").read_bytes() for place in ("0", "1")]
    assert weights[0] != weights[1]
    assert len({event["teacher"] for event in events(run.path, "asked") if event["calls"]}) == 2
