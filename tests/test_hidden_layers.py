"""Layer maps of `hidden`: the losses against float64 references, and whole runs with live and with stored layers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.tiny_models import byte_pairs, word_pieces

import stillroom
from command_line import done
from stillroom.errors import StillroomError
from stillroom.kinds import Setting, parse
from stillroom.models import pretrained
from stillroom.rows import Batch, Output, Shown, Tokens
from stillroom.rundir import read_json, write_json
from stillroom.transfer_set.store import Kept, open_kept
from tiny_language import causal, write_model, write_sentences

SOFT = {"kind": "soft_target", "temperature": 1}
ROWS, STUDENT, TEACHER, LAST = 9, 6, 10, 7


# the loss


def built(shown: Shown | None, **knobs: Any) -> Any:
    torch.manual_seed(0)
    total = LAST + (0 if shown is None else len(shown.teacher) * shown.teacher_width)
    return parse("objective", {"kind": "hidden", **knobs}).build(Setting(3, STUDENT, total, None, shown))


def seen(count: int, width: int = STUDENT) -> tuple[torch.Tensor, ...]:
    return tuple(torch.randn(ROWS, width, requires_grad=True) for _ in range(count))


@pytest.mark.parametrize("projection", ["auto", "always"])
@pytest.mark.parametrize("wide", [STUDENT, TEACHER])
@pytest.mark.parametrize("distance", ["mse", "cosine"])
def test_each_pair_of_layers_is_compared_and_the_mean_of_them_taken(distance: str, wide: int, projection: str) -> None:
    shown = Shown((0, 2), STUDENT, (1, 3, 5), wide)
    loss = built(shown, distance=distance, layers={0: 5, 2: 1}, projection=projection)
    layers, kept, weight = seen(2), torch.randn(ROWS, LAST + 3 * wide), torch.rand(ROWS)
    batch = Batch(torch.zeros(ROWS, 1), torch.zeros(ROWS, dtype=torch.int64), weight_B=weight, hidden_BH=kept)
    value = loss.sum(Output(None, torch.randn(ROWS, STUDENT), layers=layers), batch)
    assert loss.count(batch) == pytest.approx(float(weight.sum()))
    maps = [weights.detach().double().numpy() for weights in loss.parameters()]
    assert len(maps) == (2 if wide != STUDENT or projection == "always" else 0)
    expected, gradients = 0.0, []
    teacher = kept.double().numpy()
    for number, (ours, place) in enumerate(((layers[0], 2), (layers[1], 0))):
        theirs = teacher[:, LAST + place * wide : LAST + (place + 1) * wide]
        exact = ours.detach().double().requires_grad_()
        mine = exact @ torch.from_numpy(maps[number]).T if maps else exact
        other = torch.from_numpy(theirs)
        if distance == "mse":
            rows = ((mine - other) ** 2).sum(1) / wide
        else:
            rows = 1 - (mine * other).sum(1) / (mine.norm(dim=1) * other.norm(dim=1))
        part = (rows * weight.double()).sum() / 2
        expected += part.item()
        gradients.append(torch.autograd.grad(part, exact)[0])
    assert value.item() == pytest.approx(expected, rel=1e-5)
    for found, true in zip(torch.autograd.grad(value, layers), gradients, strict=True):
        assert (found - true).abs().max() <= 1e-5 * true.abs().max()


@pytest.mark.parametrize("distance", ["mse", "cosine"])
def test_equal_layers_have_no_distance(distance: str) -> None:
    loss = built(Shown((0, 1), STUDENT, (0, 1), STUDENT), distance=distance, layers={0: 0, 1: 1})
    layers = seen(2)
    kept = torch.cat([torch.randn(ROWS, LAST), *(layer.detach() for layer in layers)], 1)
    batch = Batch(torch.zeros(ROWS, 1), torch.zeros(ROWS, dtype=torch.int64), hidden_BH=kept)
    assert abs(loss.sum(Output(None, None, layers=layers), batch).item()) < 1e-5


def test_the_last_layer_stands_before_the_further_ones() -> None:
    torch.manual_seed(0)
    hidden, kept = torch.randn(ROWS, LAST), torch.randn(ROWS, LAST + 2 * TEACHER)
    shown = Shown((), 0, (1, 3), TEACHER)
    loss = parse("objective", {"kind": "hidden"}).build(Setting(3, LAST, LAST + 2 * TEACHER, None, shown))
    batch = Batch(torch.zeros(ROWS, 1), torch.zeros(ROWS, dtype=torch.int64), hidden_BH=kept)
    expected = (hidden - kept[:, :LAST]).square().mean(1).sum()
    assert loss.sum(Output(None, hidden), batch).item() == pytest.approx(expected.item(), rel=1e-6)


def test_even_pairs_end_with_the_last_layers() -> None:
    even = parse("objective", {"kind": "hidden", "layers": "even"})
    assert even.pairs(6, 12) == {0: 0, 1: 2, 2: 4, 3: 7, 4: 9, 5: 11}
    assert even.pairs(3, 3) == {0: 0, 1: 1, 2: 2}
    assert parse("objective", {"kind": "hidden"}).pairs(3, 3) == {}


def test_knobs_that_are_not_used_leave_no_trace() -> None:
    """What was trained before they came is trained from the same."""
    plain = parse("objective", {"kind": "hidden"})
    assert set(plain.model_dump(mode="json")) == {"kind", "weight", "distance"}
    told = parse("objective", {"kind": "hidden", "layers": {0: 1}, "projection": "always"})
    assert parse("objective", told.model_dump(mode="json")) == told


# networks


def test_a_network_shows_layers_only_while_it_is_asked_to() -> None:
    from tests.models.tiny_models import tiny

    from stillroom.models.classifier import showing
    from stillroom.models.text import network_of

    network = network_of(
        tiny("bert", word_pieces(), "classification", layers=3, num_labels=2), word_pieces(), "classification"
    )
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, -1, -1]])
    with torch.inference_mode():
        assert network.eval()(ids).layers == ()
        with showing(network, (0, 2)):
            layers = network(ids).layers
        assert network(ids).layers == ()
        whole = network.model(input_ids=ids.clamp(min=0), attention_mask=(ids >= 0).long(), output_hidden_states=True)
    for found, place in zip(layers, (0, 2), strict=True):
        torch.testing.assert_close(found, whole.hidden_states[place + 1][:, 0])
    assert network.depth == (3, 16)


# whole runs of language models


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layers")
    write_model(folder / "llama", "llama", tokenizer=byte_pairs(300), layers=4)
    write_model(folder / "gpt2", "gpt2", tokenizer=byte_pairs(300), layers=2, n_embd=24)
    write_model(folder / "bert", "bert", layers=4)
    write_sentences(folder)
    causal(folder)
    return folder


def kept_of(run: Path) -> Kept:
    return open_kept(run / "transfer_set" / read_json(run / "transfer_set" / "asked.json")["answers"])


def language(home: Path, layers: Any, **sections: Any) -> dict[str, Any]:
    objectives = [SOFT, {"kind": "hidden", "distance": "cosine", "layers": layers}]
    return causal(home, **{"objectives": objectives, "student": {"kind": "shrink", "layers": [0, 2]}, **sections})


def curve(run: Path) -> list[dict[str, float]]:
    found: list[dict[str, float]] = read_json(run / "student" / "history.json")["curve"]
    return found


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("layers", [{0: 1, 1: 3}, "even"])
def test_a_language_model_learns_from_several_layers(layers: Any, live: bool, home: Path, tmp_path: Path) -> None:
    run = stillroom.distill(
        language(home, layers, transfer_set={"live": live, "tail_bytes": 8}), tmp_path / "run", until="train"
    )
    norms = read_json(run.path / "student" / "history.json")["gradient_norms"]
    assert len(norms["hidden"]) == len(norms["soft_target"]) > 0
    assert all(norm > 0 for norm in norms["hidden"])
    assert all(math.isfinite(value) for point in curve(run.path) for value in point.values())
    if not live:
        kept = kept_of(run.path)
        assert kept.header.hidden_width == 16 * 3
        model, _ = pretrained.load(home / "llama", "causal")
        from stillroom.models.language import LanguageNetwork

        network = LanguageNetwork(model, "causal")
        window = windows(home)
        reader = kept.position_reader(window.key_N[:1])
        stored = torch.from_numpy(reader.take(np.arange(1), "hidden")).float()
        ids, target = (torch.from_numpy(window.raw[name][:1]).long() for name in ("ids", "target"))
        with torch.inference_mode():
            output, every = network.with_layers(Tokens(ids, target >= 0))
        chosen = (1, 3) if layers != "even" else (0, 3)
        wanted = torch.cat([output.hidden_BH, *(every[layer + 1] for layer in chosen)], 1)
        torch.testing.assert_close(stored, wanted, rtol=2e-3, atol=2e-3)


def windows(home: Path) -> Any:
    from stillroom.models.text import tokenizer_at
    from stillroom.questions.windows import windows as cut

    source = parse("questions", causal(home)["questions"])
    return cut(source.build([home]), tokenizer_at(home / "llama"), 32, context=64).train


@pytest.mark.parametrize("live", [False, True])
def test_a_student_that_is_its_teacher_is_at_no_distance(live: bool, home: Path, tmp_path: Path) -> None:
    """Also where the mean over pairs is of layers that stand in another order."""
    tree = language(
        home, {0: 0, 2: 2, 3: 3}, transfer_set={"live": live, "tail_bytes": 8},
        student={"kind": "pretrained", "from": str(home / "llama"), "task": "causal"},
        training={"epochs": 1, "batch_size": 64, "learning_rate": 1e-12},
    )  # fmt: skip
    tree["objectives"] = [{"kind": "hidden", "layers": {0: 0, 2: 2, 3: 3}}]
    run = stillroom.distill(tree, tmp_path / "run", until="train")
    assert abs(curve(run.path)[0]["loss"]) < (1e-10 if live else 1e-5)


def test_an_arm_with_other_layers_shares_the_answers(home: Path, tmp_path: Path) -> None:
    arms = {
        "last": {"objectives": [SOFT, {"kind": "hidden"}]},
        "other": {"objectives": [{"kind": "hidden", "layers": {1: 2}}, {"kind": "hidden", "layers": "last"}]},
        "none": {"objectives": [SOFT]},
    }
    run = stillroom.distill(
        language(home, {0: 1, 1: 3}, arms=arms, transfer_set={"tail_bytes": 8}), tmp_path / "run", until="train"
    )
    assert kept_of(run.path).header.hidden_width == 16 * 4  # the last, and 1, 2, 3
    assert len(list(run.path.glob("transfer_set/*/teacher.json"))) == 1
    assert (run.path / "arms" / "other" / "manifest.json").is_file()


def test_another_architecture_is_reached_by_projections(home: Path, tmp_path: Path) -> None:
    student = {"kind": "pretrained", "from": str(home / "gpt2"), "task": "causal"}
    run = stillroom.distill(language(home, {0: 0, 1: 3}, student=student), tmp_path / "run", until="train")
    assert not any("projection" in name for name in pretrained.load(run.path / "student", "causal")[0].state_dict())


def test_check_tells_what_layers_take(home: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "recipe.json", language(home, {0: 1, 1: 3}))
    told = json.loads(done("check", tmp_path / "recipe.json", "--json").out)
    assert "the teacher's hidden states after layers 1, 3 are kept: 32 bytes each for every token" in told["notes"]


# whole runs of classifiers of texts


def texts(home: Path, layers: Any, **sections: Any) -> dict[str, Any]:
    return {
        "name": "texts", "seeds": 1,
        "questions": {"kind": "dataset", "source": str(home / "sentences.csv"), "split": {"test": 30, "validation": 20}},
        "teacher": {
            "kind": "trained", "model": {"kind": "transformers", "from": str(home / "bert")},
            "epochs": 1, "batch_size": 16, "learning_rate": 0.005,
        },
        "student": {"kind": "shrink", "layers": [0, 3], "vocabulary": "cut"},
        "objectives": [{"kind": "soft_target", "temperature": 2}, {"kind": "hidden", "layers": layers}],
        "training": {"epochs": 1, "batch_size": 16, "learning_rate": 0.005},
        "evaluation": {"metrics": ["accuracy", "agreement", "cost"]},
        **sections,
    }  # fmt: skip


@pytest.mark.parametrize("live", [False, True])
def test_a_classifier_learns_from_several_layers(live: bool, home: Path, tmp_path: Path) -> None:
    run = stillroom.distill(texts(home, {0: 1, 1: 3}, transfer_set={"live": live}), tmp_path / "run")
    norms = read_json(run.path / "student" / "history.json")["gradient_norms"]
    assert len(norms["hidden"]) == len(norms["soft_target"]) > 0
    assert all(norm > 0 for norm in norms["hidden"])
    kept = kept_of(run.path)
    assert kept.header.hidden_width == (16 if live else 48)
    # A live teacher also answers each training row of the student, and of the student of its top answers.
    answered_live = 2 * run.scorecard["rows"]["train"] if live else 0
    assert run.scorecard["cost"]["teacher_calls"] == len(kept) + answered_live > 0
    if not live:
        from stillroom.models.classifier import Classifier

        teacher = Classifier.load(run.path / "teacher")
        rows = parse("questions", texts(home, "last")["questions"]).build([home]).train.take(np.arange(3))
        stored = kept.reader(rows.key_N).all("hidden")
        model, tokenizer = pretrained.load(run.path / "teacher", "classification")
        for row, text in enumerate(rows.raw["sentence"].tolist()):
            with torch.inference_mode():
                every = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
            for place, layer in enumerate((1, 3)):
                found = stored[row, 16 * (place + 1) : 16 * (place + 2)]
                np.testing.assert_allclose(found, every[layer + 1][0, 0].numpy(), rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(stored[:, :16], teacher.answer(rows).hidden_NH, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("layers", "sections", "told"),
    [
        ({0: 7}, {}, "there is no layer 7: the teacher has 4, 0 to 3 (objectives.1.layers)"),
        ({2: 1}, {}, "there is no layer 2: the student has 2, 0 to 1 (objectives.1.layers)"),
        ({}, {}, "layers"),
        ({-1: 0}, {}, "layers"),
        (
            "even",
            {"student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": [4]}}},
            "the student has no layers to choose from (objectives, kind hidden)",
        ),
        (
            "last",
            {"arms": {"a": {"objectives": [{"kind": "hidden", "layers": {0: 9}}]}}},
            "(arms.a.objectives.0.layers)",
        ),
    ],
)
def test_layers_that_are_not_there(
    layers: Any, sections: dict[str, Any], told: str, home: Path, tmp_path: Path
) -> None:
    tree = texts(home, layers, **sections)
    if "student" in sections:
        (home / "numbers.csv").write_text(
            "a,b,label\n" + "".join(f"{row},{row % 3},{'xy'[row % 2]}\n" for row in range(60))
        )
        tree["questions"] = {"kind": "dataset", "source": str(home / "numbers.csv")}
        tree["teacher"] = {"kind": "trained", "model": {"kind": "mlp", "hidden": [4]}, "epochs": 1}
    with pytest.raises(StillroomError) as error:
        stillroom.distill(tree, tmp_path / "run")
    assert told in str(error.value)
    assert not (tmp_path / "run").exists()


def test_more_layers_than_the_teacher_has(home: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "deep", "llama", tokenizer=byte_pairs(300), layers=5)
    student = {"kind": "pretrained", "from": str(tmp_path / "deep"), "task": "causal"}
    with pytest.raises(
        StillroomError, match="the student has 5 layers and the teacher 4, so they cannot be paired evenly"
    ):
        stillroom.distill(language(home, "even", student=student), tmp_path / "run")
