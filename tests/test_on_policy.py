"""Rounds on policy: what is written, asked and learned, by whom and for how many steps; and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models.tiny_models import TEMPLATE, byte_pairs

import stillroom
from command_line import events
from rehearsals import rehearsed_once
from run_folder import unnamed
from stillroom import flow
from stillroom.errors import BudgetReached, CorruptFile, ModelError, RecipeError, StillroomError
from stillroom.kinds import parse
from stillroom.models import pretrained
from stillroom.models.device import Device
from stillroom.recipe import Recipe
from stillroom.rundir import read_json
from stillroom.stages.on_policy_writing import read_rows, read_windows
from stillroom.training.language_batches import WindowBatches, WindowSource
from stillroom.transfer_set.recording import opened
from stillroom.transfer_set.store import open_kept
from tiny_language import causal, kept_files, write_model

SOFT = {"kind": "soft_target", "temperature": 1}
ON_POLICY = {"kind": "on_policy", "prompt": 8}
ROUNDS = {"strategy": ON_POLICY, "budgets": [6, 12]}
WINDOW = 32


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny text and the teacher."""
    folder = tmp_path_factory.mktemp("on_policy")
    causal(folder)
    return folder


@pytest.fixture(scope="module")
def tree(home: Path) -> dict[str, Any]:
    """Two seeds, two rounds; arms that learn the text for as many steps, and that write at another temperature."""
    arms = {"off_policy": {"rounds": None}, "cold": {"rounds": {"strategy": {"temperature": 0.0}}}}
    objectives = [SOFT, {"kind": "hard_label", "weight": 0.5}]
    return causal(home, name="whole", seeds=2, rounds=ROUNDS, arms=arms, objectives=objectives)


@pytest.fixture(scope="module")
def whole(tree: dict[str, Any], home: Path) -> Any:
    """A finished run."""
    return stillroom.distill(tree, home / "whole")


def written(run: Path, number: int, role: str = "student") -> list[dict[str, Any]]:
    return read_rows(run / "rounds" / role / str(number))


def history(run: Path, role: str = "student") -> dict[str, Any]:
    found: dict[str, Any] = read_json(run / role / "history.json")
    return found


def calls(run: Path) -> int:
    return sum(event["calls"] for event in events(run, "asked"))


def kept_keys(run: Path) -> int:
    """How many answers all teachers of a store gave."""
    return sum(len(open_kept(path.parent)) for path in run.glob("transfer_set/*/teacher.json"))


# what is written and asked


def test_each_student_writes_after_beginnings_of_training_windows(whole: Any, home: Path) -> None:
    beginnings = {tuple(row[:8].tolist()) for row in windows(home)}
    for role in ("student", "seeds/1/student", "arms/cold"):
        for number in (1, 2):
            rows = written(whole.path, number, role)
            assert len(rows) == 6
            for row in rows:
                assert tuple(row["prompt_ids"]) in beginnings
                assert 1 <= len(row["written_ids"]) <= WINDOW - 8
                assert row["ended"] or len(row["written_ids"]) == WINDOW - 8
    assert sorted(path.name for path in (whole.path / "rounds").iterdir()) == ["arms", "seeds", "student"]


def windows(home: Path) -> Any:
    """Ids of the training windows."""
    from stillroom.models.text import tokenizer_at
    from stillroom.questions.windows import windows as cut

    raw = cut(
        parse("questions", causal(home)["questions"]).build([home]), tokenizer_at(home / "llama"), WINDOW
    ).train.raw
    assert isinstance(raw, dict)
    return raw["ids"]


def test_every_seed_and_round_writes_its_own(whole: Any) -> None:
    said = {
        (role, number): json.dumps([row["written_ids"] for row in written(whole.path, number, role)])
        for role in ("student", "seeds/1/student")
        for number in (1, 2)
    }
    assert len(set(said.values())) == 4


def test_every_written_window_is_asked_once(whole: Any, tree: dict[str, Any], home: Path) -> None:
    keys = [read_windows(path.parent, WINDOW).key_N for path in whole.path.glob("rounds/**/written.jsonl")]
    assert len(keys) == 8  # of the student and one arm, two seeds and two rounds
    mine = {key.tobytes() for part in keys for key in part}
    assert calls(whole.path) == len(windows(home)) + len(mine) == kept_keys(whole.path)
    before = kept_files(whole.path)
    stillroom.distill(tree, whole.path)
    shutil.rmtree(whole.path / "student")
    shutil.rmtree(whole.path / "hard_teacher")
    stillroom.distill(tree, whole.path)
    assert kept_files(whole.path) == before
    assert calls(whole.path) == len(windows(home)) + len(mine)


def test_nothing_of_validation_or_test_is_gone_on_from(whole: Any, home: Path) -> None:
    held_out = " ".join((home / name).read_text() for name in ("valid.txt", "test.txt"))
    train = (home / "train.txt").read_text()
    prompts = {row["prompt"].strip() for number in (1, 2) for row in written(whole.path, number)}
    assert prompts
    assert all(prompt in train for prompt in prompts)
    assert not all(prompt in held_out for prompt in prompts)


def test_what_was_written_and_damaged_is_not_learned_from(tree: dict[str, Any], home: Path) -> None:
    run = home / "damaged"
    stillroom.distill({**tree, "name": "damaged", "seeds": 1, "arms": {}}, run, until="train")
    file = run / "rounds" / "student" / "1" / "written.jsonl"
    file.write_text(file.read_text().replace('"ended": false', '"ended": true ', 1))
    before = kept_files(run)
    with pytest.raises(CorruptFile, match=r"Remove .* and run again"):
        stillroom.distill({**tree, "name": "damaged", "seeds": 1, "arms": {}}, run, until="train")
    shutil.rmtree(file.parent)
    stillroom.distill({**tree, "name": "damaged", "seeds": 1, "arms": {}}, run, until="train")
    assert kept_files(run) == before


# what is learned


def test_all_models_take_the_same_steps(whole: Any) -> None:
    told = history(whole.path)
    windows = 46
    per_round = math.ceil(12 / 8)
    assert told["rounds"] == [
        math.ceil(windows / 8),
        math.ceil(windows / 8) + per_round,
        math.ceil(windows / 8) + 2 * per_round,
    ]
    for role in ("control", "hard_teacher", "arms/off_policy", "arms/cold", "seeds/1/student", "seeds/1/control"):
        assert history(whole.path, role)["rounds"] == told["rounds"]
        assert history(whole.path, role)["steps"] == told["steps"] == told["rounds"][-1]
    steps = [point["step"] for point in told["curve"]]
    assert steps == sorted(steps)
    assert len(told["gradient_norms"]["soft_target"]) > 3
    assert not (whole.path / ".work").exists()


def test_before_the_rounds_an_arm_without_them_was_the_student(whole: Any) -> None:
    ours, theirs = history(whole.path)["curve"], history(whole.path, "arms/off_policy")["curve"]
    first = history(whole.path)["rounds"][0]
    assert [point for point in ours if point["step"] <= first] == [point for point in theirs if point["step"] <= first]
    assert ours[-1] != theirs[-1]


@pytest.mark.parametrize("kept", [{"live": True}, {"tail_bytes": 24}])
def test_a_student_that_is_its_teacher_has_nothing_to_learn_of_what_it_wrote(kept: dict[str, Any], home: Path) -> None:
    """So each written window stands beside what the teacher said of it, token by token."""
    name = f"same {'live' if kept.get('live') else 'kept'}"
    tree = causal(
        home, name=name, rounds={"strategy": {**ON_POLICY, "share": 1}, "budgets": [16]}, transfer_set=kept,
        student={"kind": "pretrained", "from": str(home / "llama"), "task": "causal"},
        training={"epochs": 1, "batch_size": 8, "learning_rate": 1e-12},
    )  # fmt: skip
    run = stillroom.distill(tree, home / name, until="train")
    told = history(run.path)
    losses = [point["loss"] for point in told["curve"] if point["step"] > told["rounds"][0]]
    assert len(losses) == 2
    most = 1e-5
    if not kept.get("live"):
        fidelity = read_json(run.path / "transfer_set" / "fidelity.json")
        most += 4 * fidelity["tried"][fidelity["kept"]]["train"]["kl"]
    assert all(abs(loss) < most for loss in losses)


@pytest.mark.parametrize(
    "sections",
    [
        {"objectives": [{**SOFT, "divergence": "reverse"}, {"kind": "hidden"}]},
        {"objectives": [{"kind": "hard_label", "from": "teacher"}], "transfer_set": {"tail": "bucket"}},
        {"student": {"kind": "lora", "from": "llama", "rank": 2}, "training": {"epochs": 1, "learning_rate": 0.05}},
        {"objectives": [SOFT, {"kind": "trace"}], "transfer_set": {"live": True}},
    ],
)  # fmt: skip
def test_forms_of_answers_objectives_and_students(sections: dict[str, Any], home: Path, tmp_path: Path) -> None:
    run = flow.distill(
        causal(home, name="form", rounds=ROUNDS, **sections), tmp_path / "run", until="train", folder=home
    )
    told = history(run.path)
    assert all(math.isfinite(value) for point in told["curve"] for value in point.values())
    losses = {point["step"]: point["validation_loss"] for point in told["curve"]}
    assert len({losses[step] for step in told["rounds"]}) == 3, "each round changes the weights"
    assert not (run.path / "student" / "adapter_config.json").exists()
    if sections.get("transfer_set", {}).get("live"):
        assert not events(run.path, "asked")


def test_several_teachers_are_asked_and_their_answers_merged(home: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "other", "llama", layers=1)
    members = [
        {"kind": "transformers", "model": str(place), "task": "causal"}
        for place in (home / "llama", tmp_path / "other")
    ]
    student = {"kind": "pretrained", "from": str(home / "llama"), "task": "causal"}
    tree = causal(home, name="two", teacher={"kind": "ensemble", "members": members}, student=student, rounds=ROUNDS)
    run = stillroom.distill(tree, tmp_path / "run")
    mine = {
        key.tobytes() for number in (1, 2) for key in read_windows(run.path / f"rounds/student/{number}", WINDOW).key_N
    }
    assert calls(run.path) == 2 * (len(windows(home)) + len(mine))
    assert run.scorecard["transfer_set"]["rows"] == len(windows(home)) + len(mine)


def test_only_what_was_written_is_scored_and_it_is_no_label(whole: Any) -> None:
    """Prompts are masked; the teacher's answers cover all that was written; labels are the text's own."""
    place = whole.path / "rounds" / "student" / "1"
    own = read_windows(place, WINDOW)
    assert isinstance(own.raw, dict)
    ids, target = own.raw["ids"], own.raw["target"]
    for row, ids_T, target_T in zip(read_rows(place), ids, target, strict=True):
        before, after = len(row["prompt_ids"]), len(row["written_ids"])
        assert ids_T[: before + after].tolist() == row["prompt_ids"] + row["written_ids"]
        assert (ids_T[before + after :] == -1).all()
        assert np.flatnonzero(target_T >= 0).tolist() == list(range(before - 1, before + after - 1))
        assert target_T[before - 1 : before + after - 1].tolist() == row["written_ids"]
    kept = open_kept(whole.path / "transfer_set" / read_json(whole.path / "transfer_set" / "asked.json")["answers"])
    assert kept.header.layout is not None
    layout, fitted = opened(kept.folder, kept.header.layout)
    source = WindowSource(own, [kept.position_reader(own.key_N)], layout, fitted, None, [0], None, own=4)
    batch = WindowBatches(source, 6, 0, Device())(0)
    assert batch.label_B is not None
    assert batch.sparse is not None
    assert len(batch.sparse.ids_PK) == len(batch.label_B) == int((target >= 0).sum())
    assert int((batch.label_B >= 0).sum()) == int((target[4:] >= 0).sum())
    loss = parse("objective", {"kind": "hard_label"}).build(None)
    assert loss.count(batch) == int((target[4:] >= 0).sum())


def test_the_report_tells_what_was_written(whole: Any) -> None:
    details = read_json(whole.path / "evaluation" / "details.json")["on_policy"]
    assert [one["windows"] for one in details["rounds"]] == [12, 12]
    rows = [row for role in ("student", "seeds/1/student") for row in written(whole.path, 2, role)]
    assert details["rounds"][1]["tokens"] == sum(len(row["written_ids"]) for row in rows)
    assert set(details["validation_loss"]) == {"student", "control", "hard_teacher", "off_policy", "cold"}
    assert all(len(losses) == 3 for runs in details["validation_loss"].values() for losses in runs)
    assert not unnamed(whole.path)
    page = (whole.path / "report.html").read_text()
    assert "What the student wrote, and what its teacher made of it" in page
    mine = {key.tobytes() for path in whole.path.glob("rounds/**/written.jsonl") for key in keys_of(path.parent)}
    assert whole.scorecard["transfer_set"]["rows"] == 46 + len(mine)
    assert whole.scorecard["cost"]["teacher_tokens"] == whole.scorecard["transfer_set"]["positions"]


def keys_of(folder: Path) -> Any:
    return read_windows(folder, WINDOW).key_N


# budgets and the plan


def test_a_budget_of_tokens_stops_before_it_is_passed_and_the_run_goes_on(home: Path, tmp_path: Path) -> None:
    tree = causal(home, name="budget", rounds=ROUNDS)
    stillroom.distill(tree, tmp_path / "whole", until="train")
    spent = sum(event["tokens"] for event in events(tmp_path / "whole", "asked"))
    run = tmp_path / "run"
    for most, rounds in ((100, 0), (spent - 1, 2)):
        with pytest.raises(BudgetReached, match=r"teacher tokens does not cover the next .* \(budget.teacher_tokens\)"):
            stillroom.distill({**tree, "budget": {"teacher_tokens": most}}, run, until="train")
        asked = events(run, "asked") if rounds else []
        assert sum(event["tokens"] for event in asked) <= most
        assert len(list(run.glob("rounds/student/*/manifest.json"))) == rounds
        assert not (run / "student" / "manifest.json").exists()
    stillroom.distill({**tree, "budget": {"teacher_tokens": spent}}, run, until="train")
    assert kept_files(run) == kept_files(tmp_path / "whole")
    assert calls(run) == calls(tmp_path / "whole")


def test_the_plan_counts_what_will_be_written(tree: dict[str, Any], whole: Any, home: Path) -> None:
    with rehearsed_once([]):
        told = flow.plan(Recipe.from_tree(tree), home)["figures"]
        plain = flow.plan(Recipe.from_tree({**tree, "rounds": None, "arms": {}}), home)["figures"]
    assert told["windows written"] == 2 * 2 * 12
    assert told["tokens written"] == 2 * 2 * 12 * (WINDOW - 8)
    assert told["teacher calls"] == plain["teacher calls"] + told["windows written"]
    assert told["teacher tokens"] == plain["teacher tokens"] + told["tokens written"]
    assert "windows written" not in plain
    used = sum(-(-path.stat().st_size // 4096) * 4096 for path in whole.path.rglob("*") if path.is_file())
    assert told["disk_mib"] == pytest.approx(used / 2**20, rel=0.2)


# what is refused


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"rounds": {**ROUNDS, "strategy": {**ON_POLICY, "prompt": 32}}}, "no training window of 32 tokens leaves room"),
        ({"rounds": {**ROUNDS, "strategy": {**ON_POLICY, "prompt": 32}}}, "(rounds.strategy.prompt). Set it to 31 or less"),
        ({"rounds": {**ROUNDS, "strategy": {**ON_POLICY, "prompt": 0}}}, "prompt: should be at least 1, not 0"),
        ({"rounds": {**ROUNDS, "strategy": {**ON_POLICY, "share": 0}}}, "share: should be above 0, not 0"),
        ({"rounds": {**ROUNDS, "strategy": {**ON_POLICY, "temprature": 1}}}, "Did you mean 'temperature'"),
        ({"rounds": {**ROUNDS, "strategy": {**ON_POLICY, "temperature": -1}}}, "temperature: should be at least 0"),
        ({"rounds": {**ROUNDS, "budgets": [8, 8]}}, "budgets should rise from each round to the next"),
        ({"rounds": {**ROUNDS, "start": 4}}, "this is for rounds that choose among questions (rounds.start). Take it out"),
        ({"rounds": {**ROUNDS, "audit": 0.2}}, "(rounds.audit)"),
        ({"rounds": {**ROUNDS, "stop": {"plateau": 0.1}}}, "(rounds.stop)"),
        ({"rounds": {**ROUNDS, "compare": ["random"]}}, "(rounds.compare)"),
        ({"rounds": {"strategy": "margin", "budgets": [64]}}, "Use on_policy, or take rounds out"),
        ({"objectives": [{"kind": "hard_label"}], "rounds": ROUNDS}, "none of these objectives asks what the teacher says"),
        ({"arms": {"a": {"rounds": ROUNDS}}}, "an arm has rounds, and the run itself has none (arms.a.rounds)"),
        ({"rounds": ROUNDS, "arms": {"a": {"rounds": {"strategy": "random", "budgets": [64]}}}}, "(arms.a.rounds.strategy)"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_work(sections: dict[str, Any], told: str, home: Path, tmp_path: Path) -> None:
    with pytest.raises(StillroomError) as error:
        stillroom.distill(causal(home, **sections), tmp_path / "run")
    assert told in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_classifier_writes_nothing(tmp_path: Path) -> None:
    tree = {
        "name": "digits",
        "questions": {"kind": "dataset", "source": "builtin:digits"},
        "teacher": {"kind": "trained", "model": {"kind": "mlp"}},
        "student": {"kind": "fresh", "model": {"kind": "mlp"}},
        "rounds": {"strategy": "on_policy", "budgets": [64]},
    }
    with pytest.raises(RecipeError, match=r"this teacher cannot \(rounds.strategy\)"):
        stillroom.distill(tree, tmp_path / "run")
    tree["rounds"] = {"strategy": "margin", "budgets": [64], "compare": ["on_policy"]}
    with pytest.raises(RecipeError, match="on_policy is for language models"):
        stillroom.distill(tree, tmp_path / "run")


def test_another_tokenizer_is_refused_as_without_rounds(home: Path, tmp_path: Path) -> None:
    from tokenizers import AddedToken

    tokenizer = byte_pairs(300)
    tokenizer.add_tokens([AddedToken("<more>", special=True)])
    write_model(tmp_path / "other", "llama", tokenizer=tokenizer, layers=1)
    student = {"kind": "pretrained", "from": str(tmp_path / "other"), "task": "causal"}
    with pytest.raises(ModelError, match="the vocabularies differ in 1 tokens, first '<more>'"):
        stillroom.distill(causal(home, student=student, rounds=ROUNDS), tmp_path / "run")


# conversations


def test_a_conversation_is_gone_on_from_where_the_assistant_speaks(tmp_path: Path) -> None:
    lines = [
        {"messages": [{"role": "user", "content": f"what is {place}"}, {"role": "assistant", "content": "a bad film"}]}
        for place in range(30)
    ]
    (tmp_path / "chat.jsonl").write_text("\n".join(map(json.dumps, lines)))
    write_model(tmp_path / "chatty", "llama", tokenizer=byte_pairs(300, TEMPLATE), layers=2)
    tree = causal(
        tmp_path,
        name="chat",
        questions={"kind": "dataset", "source": "chat.jsonl", "window": WINDOW},
        teacher={"kind": "transformers", "model": "chatty", "task": "causal"},
        rounds={"strategy": {"kind": "on_policy", "max_tokens": 5}, "budgets": [6]},
    )
    run = flow.distill(tree, tmp_path / "run", until="train", folder=tmp_path)
    tokenizer = pretrained.load(tmp_path / "chatty", "causal")[1]
    for row in written(run.path, 1):
        whole = tokenizer.decode(row["prompt_ids"])
        question = lines[row["row"]]["messages"][0]["content"]
        expected = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
        )
        assert whole == expected
        assert len(row["written_ids"]) <= 5
