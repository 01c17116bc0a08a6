"""What may become a job, and what rows become."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from benchmarks.service_creations import Idle
from benchmarks.service_jobs import body, digits, moods
from sqlalchemy import insert, text, update

from stillroom.errors import DataError
from stillroom.recipe import _a_name
from stillroom.service.data import completion_rows as stored
from stillroom.service.door.access import make_project
from stillroom.service.door.faults import ApiError
from stillroom.service.jobs.job_rows import by_id
from stillroom.service.recipes import presets, sources, talks
from stillroom.service.recipes.drafting import Rejected, Talk, are_classes, asked, recorded
from stillroom.service.recipes.presets import OF_LETTERS, OF_WORDS
from stillroom.service.recipes.sources import prepared
from stillroom.service.recipes.talks import MOST_BYTES, of_completion, of_stored, plain
from stillroom.service.rows.database import Database
from stillroom.service.rows.tables import completions, files, projects, teachers
from stillroom.service.settings import Limits, Settings

PLACE = "/v1/fine_tuning/jobs"
ASKED = {"role": "user", "content": "q"}
FILE = f"file-{'a' * 24}"
MLP = {"kind": "mlp", "hidden": [4]}


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Idle]:
    with Idle(tmp_path_factory.mktemp("idle")) as found:
        yield found


@pytest.fixture
def http(idle: Idle) -> httpx2.Client:
    return idle.http()


def uploaded(http: httpx2.Client, data: bytes, purpose: str = "fine-tune", name: str = "rows.jsonl") -> str:
    answer = http.post("/v1/files", files={"file": (name, data)}, data={"purpose": purpose})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def set_teacher(idle: Idle, name: str, **more: Any) -> None:
    values = {
        "id": f"teacher-{name:a>24}"[:32], "project_id": idle.first_project(), "name": name, "model": "m",
        "base_url": "http://127.0.0.1:9/v1", "created_at": 1, "distillable": True, **more,
    }  # fmt: skip
    with idle.rows.writing() as rows:
        rows.execute(insert(teachers).values(**values))


def teacher(**knobs: Any) -> dict[str, Any]:
    return digits(teacher=knobs)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a path": (digits(questions={"kind": "dataset", "source": "/etc/passwd"}), "questions.source"),
    "a relative path": (digits(questions={"kind": "dataset", "source": "../../secret"}), "questions.source"),
    "a path by split": (digits(questions={"kind": "dataset", "source": {"train": "a.csv"}}), "questions.source.train"),
    "the hub": (digits(questions={"kind": "dataset", "source": "hf:x/y"}), "questions.source"),
    "another's file": (digits(questions={"kind": "dataset", "source": FILE}), "questions.source"),
    "a store": (digits(transfer_set={"store": "shared"}), "transfer_set.store"),
    "a store of an arm": (digits(arms={"a": {"transfer_set": {"store": "x"}}}), "arms.a.transfer_set.store"),
    "an address": (teacher(kind="openai_api", model="m", base_url="http://169.254.169.254/v1"), "teacher"),
    "an address beside a name": (teacher(teacher="known", base_url="http://10.0.0.1/v1"), "teacher.base_url"),
    "a key's name": (teacher(teacher="known", api_key_env="STILLROOM_SECRET"), "teacher.api_key_env"),
    "a teacher nobody set": (teacher(teacher="nobody"), "teacher"),
    "a saved teacher": (teacher(kind="saved", model="/models/x"), "teacher"),
    "weights of the hub": (teacher(kind="transformers", model="hf:x/y"), "teacher"),
    "a member with an address": (
        teacher(kind="ensemble", members=[{"kind": "openai_api", "model": "m"}, {"kind": "trained", "model": MLP}]),
        "teacher.members.0",
    ),
    "recorded in a path": (teacher(kind="recorded", source="/etc/shadow"), "teacher.source"),
    "a student's path": (digits(student={"kind": "pretrained", "from": "/models/x"}), "student.from"),
    "a package's path": (digits(student={"kind": "lora", "from": "package:os/../../etc"}), "student.from"),
    "code of a model": (
        digits(student={"kind": "fresh", "model": {"kind": "transformers", "config": {"auto_map": {}}}}),
        "student.model.config.auto_map",
    ),
    "trust in a model's code": (
        digits(student={"kind": "fresh", "model": {"kind": "transformers", "config": {"trust_me": True}}}),
        "student.model.config.trust_me",
    ),
    "a tokenizer's path": (
        digits(student={"kind": "fresh", "model": {"kind": "transformers", "tokenizer": "/x", "config": {}}}),
        "student.model.tokenizer",
    ),
    "an independent teacher": (
        digits(evaluation={"independent_teacher": {"kind": "openai_api", "model": "m"}}),
        "evaluation.independent_teacher",
    ),
    "no such knob": (digits(speed=3), "speed"),
    "no such kind": (digits(student={"kind": "clone"}), "student.kind"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_recipe_that_is_refused(idle: Idle, http: httpx2.Client, words: str) -> None:
    recipe, param = REFUSED[words]
    if words.startswith("an address beside"):
        set_teacher(idle, "known")
    answer = http.post(PLACE, json=body(recipe))
    assert answer.status_code in (400, 404), answer.text
    told = answer.json()["error"]
    assert told["param"] == f"distillation.recipe.{param}"
    assert told["code"]
    assert str(idle.root) not in told["message"]


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": "no-such-model"}, 400, "model"),
        ({"model": "../x"}, 400, "model"),
        ({"training_file": FILE}, 404, "training_file"),
        ({"training_file": "/etc/passwd"}, 404, "training_file"),
        ({"training_file": "none"}, 400, "training_file"),
        ({"training_file": "stored_completions"}, 400, "distillation.source"),
        ({"validation_file": FILE}, 404, "validation_file"),
        ({"seed": -1}, 400, "seed"),
        ({"suffix": "s" * 65}, 400, "suffix"),
        ({"method": {"type": "dpo"}}, 400, "method.type"),
        ({"method": {"type": "magic"}}, 400, "method.type"),
        ({"metadata": {"k": "v" * 513}}, 400, "metadata"),
        ({"hyperparameters": {"n_epochs": 0}}, 400, "hyperparameters.n_epochs"),
        ({"distillation": {"teacher": "nobody"}}, 404, "distillation.teacher"),
        ({"distillation": {"recipe": {**digits(), "notes": ["x" * (1 << 18)]}}}, 400, "distillation.recipe"),
        ({"distillation": {"soft_targets": True}}, 400, "distillation.teacher"),
        ({"distillation": {"surprise": 1}}, 400, "distillation.surprise"),
        ({"distillation": {"source": {}}}, 400, "distillation.source"),
        ({"distillation": {"source": {"stored_completions": {"metadata": {"a": "b"}}}}}, 403, None),
        *(
            ({"distillation": {"recipe": digits(), **beside}}, 400, f"distillation.{next(iter(beside))}")
            for beside in (
                {"teacher": "x"},
                {"student": {}},
                {"source": {"file": FILE}},
                {"labels": ["a"]},
                {"soft_targets": True},
                {"cascade": {"risk": 0.1}},
            )
        ),
        ({"model": "tiny-language", "distillation": {"cascade": {"risk": 0.1}}}, 400, "distillation.cascade"),
        ({"distillation": {"student": {"kind": "pretrained", "from": "/models/x"}}}, 400, "distillation.student.from"),
        ({"distillation": {"student": {"kind": "lora", "from": "hf:x/y"}}}, 400, "distillation.student.from"),
        (
            {"distillation": {"student": {"kind": "fresh", "model": MLP, "path": "/x"}}},
            400,
            "distillation.student.path",
        ),
        ({"distillation": {"student": {"kind": "clone"}}}, 400, "distillation.student.kind"),
        (
            {"distillation": {"student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": 3}}}},
            400,
            "distillation.student",
        ),
        ({"distillation": {"student": "../../x"}}, 400, "distillation.student"),
    ],
)
def test_a_request_that_is_refused(http: httpx2.Client, change: dict[str, Any], status: int, param: str | None) -> None:
    plain = {"model": "small-text-classifier", "training_file": uploaded(http, moods(30))}
    answer = http.post(PLACE, json={**plain, **change})
    assert answer.status_code == status, answer.text
    assert param is None or str(answer.json()["error"]["param"]).startswith(param)


@pytest.mark.parametrize(("model", "code"), [("gpt-9", "model_not_found"), ("tiny-language", "not_installed")])
def test_where_no_language_model_can_be_trained_an_unknown_name_is_told_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, code: str
) -> None:
    monkeypatch.setattr(presets, "writes_here", lambda: False)
    with pytest.raises(ApiError) as told:
        presets.preset_of(Settings(root=tmp_path), model, None)
    assert told.value.code == code


def test_what_is_not_read_says_what_to_do_instead(http: httpx2.Client) -> None:
    name = uploaded(http, moods(30))
    asked_for: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("small-text-classifier", {"recipe": digits(), "soft_targets": True}, "Take the objective soft_target"),
        ("tiny-language", {"cascade": {"risk": 0.1}}, "take a student that picks one of a few answers"),
    )
    for model, wanted, cure in asked_for:
        answer = http.post(PLACE, json={"model": model, "training_file": name, "distillation": wanted})
        assert answer.status_code == 400
        assert cure in answer.json()["error"]["message"]
    for wanted in ({"recipe": digits(), "soft_targets": False}, {"cascade": {"risk": 0.1}}):
        plain = {"model": "small-text-classifier", "training_file": name, "distillation": wanted}
        assert http.post(PLACE, json=plain).status_code == 200


def test_a_cascade_of_rows_that_are_no_classes_fails_with_the_field(
    idle: Idle, http: httpx2.Client, tmp_path: Path
) -> None:
    """A base could be either kind of student, and only its rows tell."""
    base = idle.root / "bases" / "either"
    base.mkdir(parents=True, exist_ok=True)
    (base / "config.json").write_text("{}")
    rows = "".join(
        json.dumps({"messages": [ASKED, {"role": "assistant", "content": f"answer {place}"}]}) + "\n"
        for place in range(20)
    )
    wanted = {
        "model": "either",
        "training_file": uploaded(http, rows.encode()),
        "distillation": {"cascade": {"risk": 0.1}},
    }
    sent = http.post(PLACE, json=wanted)
    assert sent.status_code == 200, sent.text
    state = SimpleNamespace(settings=Settings(idle.root), database=idle.rows)
    with idle.rows.reading() as found:
        job = by_id(found, sent.json()["id"])
    with pytest.raises(ApiError) as raised:
        prepared(state, job, tmp_path)
    assert (raised.value.param, raised.value.code) == ("distillation.cascade", "no_cascade")


def test_a_file_for_something_else_is_refused(http: httpx2.Client) -> None:
    name = uploaded(http, b"a,b\n1,2\n", "user_data", "t.csv")
    answer = http.post(PLACE, json={"model": "small-text-classifier", "training_file": name})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_purpose")


def test_another_projects_file_is_unknown(idle: Idle, http: httpx2.Client) -> None:
    theirs = uploaded(idle.http(idle.key("other", project=idle.project())), moods(30))
    for name in (theirs, FILE):
        answer = http.post(PLACE, json={"model": "small-text-classifier", "training_file": name})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "file_not_found")


def test_teachers_that_may_not_be_learned_from(idle: Idle, http: httpx2.Client) -> None:
    set_teacher(idle, "closed", distillable=False)
    set_teacher(idle, "bound", base_url="https://api.openai.com/v1", model="gpt-4o")
    name = uploaded(http, moods(30, answered=False))
    wanted = {"model": "small-text-classifier", "training_file": name}
    closed = http.post(PLACE, json={**wanted, "distillation": {"teacher": "closed"}})
    assert (closed.status_code, closed.json()["error"]["code"]) == (403, "not_distillable")
    bound = http.post(PLACE, json={**wanted, "distillation": {"teacher": "bound"}})
    assert (bound.status_code, bound.json()["error"]["code"]) == (400, "terms_not_accepted")
    as_recipe = http.post(PLACE, json=body(teacher(teacher="closed")))
    assert as_recipe.json()["error"]["code"] == "not_distillable"


def test_stored_completions_need_the_projects_word(idle: Idle, http: httpx2.Client) -> None:
    wanted = {"model": "tiny-language", "distillation": {"source": {"stored_completions": {"metadata": {"a": "b"}}}}}
    assert http.post(PLACE, json=wanted).status_code == 403
    with idle.rows.writing() as rows:
        rows.execute(update(projects).where(projects.c.id == idle.first_project()).values(trains_on_stored=True))
    answer = http.post(PLACE, json=wanted)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_rows")


def test_creating_a_job_of_stored_completions_reads_none_of_them(idle: Idle, http: httpx2.Client) -> None:
    project = idle.first_project()
    with idle.rows.writing() as rows:
        rows.execute(update(projects).where(projects.c.id == project).values(trains_on_stored=True))
        rows.execute(insert(completions).values(
            id=f"chatcmpl-{'b' * 24}", project_id=project, model="broken", request={}, response={}, by="t",
            created_at=int(time.time()),
        ))  # fmt: skip
        rows.execute(text("UPDATE completions SET response = '{not JSON' WHERE model = 'broken'"))
    wanted = {"source": {"stored_completions": {"model": "broken"}}}
    answer = http.post(PLACE, json={"model": "tiny-language", "distillation": wanted})
    assert (answer.status_code, answer.json().get("training_file")) == (200, "stored_completions"), answer.text


def test_a_file_that_a_job_could_not_hold_is_refused(idle: Idle, http: httpx2.Client) -> None:
    good, large = uploaded(http, moods(30)), uploaded(http, moods(30))
    with idle.rows.writing() as rows:
        rows.execute(update(files).where(files.c.id == large).values(bytes=MOST_BYTES + 1))
    for sent, param in (
        ({"training_file": large}, "training_file"),
        ({"training_file": good, "validation_file": large}, "validation_file"),
    ):
        answer = http.post(PLACE, json={"model": "small-text-classifier", **sent})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "file_too_large")
        assert (answer.json()["error"]["param"], "134,217,728" in answer.text) == (param, True)


def completion(asked: list[dict[str, Any]], choices: Any = None, **more: Any) -> dict[str, Any]:
    said = [{"message": {"role": "assistant", "content": "a"}}] if choices is None else choices
    return {"id": "chatcmpl-x", "request": {"messages": asked}, "response": {"choices": said}, **more}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (completion([ASKED], []), "there is no answer in it"),
        (completion([ASKED], response={}), "there is no answer in it"),
        (completion([{"role": "system", "content": "q"}]), "messages: no message of the user"),
        (completion([{"role": "function", "name": "f", "content": "q"}, ASKED]), "messages.0.role: 'function'"),
        (completion([ASKED, {"role": "assistant", "content": ""}, ASKED]), "messages.1.content: empty"),
        (completion([ASKED, {"role": "assistant", "content": "I"}]), "messages: the last one that was sent is an answer"),
        (completion([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]),
         "messages.0.content.0.type: 'image_url'"),
    ],
)  # fmt: skip
def test_a_stored_call_that_no_student_can_learn_from_says_why(row: dict[str, Any], why: str) -> None:
    found = of_completion(row)
    assert isinstance(found, Rejected)
    assert found.why.startswith(why)
    assert found.talk.source == "chatcmpl-x"


@pytest.fixture
def training(tmp_path: Path) -> Iterator[tuple[Database, str]]:
    """A database, and a project in it that trains on what it stored: ten answers, and one without any."""
    database = Database(tmp_path)
    database.upgrade()
    project = make_project(database, "a")
    with database.writing() as rows:
        rows.execute(update(projects).values(trains_on_stored=True))
        for place in range(11):
            row = completion([{"role": "user", "content": f"q {place}"}], [] if place == 3 else None)
            rows.execute(insert(completions).values(
                **{**row, "id": f"chatcmpl-{place:024}"}, project_id=project, model="m", by="teacher",
                created_at=int(time.time()),
            ))  # fmt: skip
    yield database, project
    database.close()


def test_stored_completions_are_read_in_pieces(
    training: tuple[Database, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, project = training
    monkeypatch.setattr(stored, "AT_ONCE", 2)
    kept, left_out = of_stored(database, Settings(tmp_path), project, None, "m")
    assert [one.question for one in kept] == [f"q {place}" for place in range(11) if place != 3]
    assert [one.talk.source for one in left_out] == [f"chatcmpl-{3:024}"]
    drafted = recorded(kept, OF_LETTERS, tmp_path, None, left_out)
    assert (len(drafted.sources), [one.why for one in drafted.rejected]) == (10, ["there is no answer in it"])


@pytest.mark.parametrize(("letters", "most"), [(20, 1_000), (1 << 20, 10)])
def test_stored_completions_that_a_job_could_not_hold_are_refused(
    training: tuple[Database, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, letters: int, most: int
) -> None:
    database, project = training
    monkeypatch.setattr(talks, "MOST_BYTES", letters)
    with pytest.raises(ApiError, match="a job holds all of its rows") as raised:
        of_stored(database, Settings(tmp_path, limits=Limits(file_rows=most)), project, None, None)
    assert (raised.value.status, raised.value.code) == (400, "too_much_stored")


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    "said",
    [
        {"content": None, "tool_calls": [CALL]},
        {"content": "Let me look.", "tool_calls": [CALL]},
        {"content": None, "refusal": "I cannot."},
        {"content": " \n"},
    ],
)
def test_an_answer_without_text_is_not_learned(said: dict[str, Any], tmp_path: Path) -> None:
    row = {
        "id": "chatcmpl-x", "request": {"messages": [{"role": "user", "content": "q"}]},
        "response": {"choices": [{"message": {"role": "assistant", **said}}]},
    }  # fmt: skip
    rows = [talk(f"question {place}", f"answer {place}") for place in range(20)]
    between = [{"role": "user", "content": "q"}, plain({"role": "assistant", **said}), *rows[0].messages]
    rows += [of_completion(row), Talk("f", 2, between, "answer 0")]
    found = recorded(rows, OF_LETTERS, tmp_path, None)
    assert len(found.sources) == 20
    assert {one.why for one in found.rejected} == {"an answer in it has no text: it is empty, or calls a tool"}
    assert len(found.rejected) == 2
    kinds = [talk(f"question {place}", "yes" if place % 2 else "no") for place in range(20)]
    empty = Talk("f", 3, [{"role": "user", "content": "q"}, {"role": "assistant", "content": ""}], "")
    for drafted in (
        recorded([*kinds, empty, empty, empty], OF_WORDS, tmp_path, None),
        asked([*kinds, empty], [], {}, None, tmp_path),
        asked(kinds, [*kinds, empty], {}, None, tmp_path),
    ):
        assert "" not in {one.answer for one in drafted.sources}
        assert drafted.rejected


def talk(question: str, answer: str | None, line: int = 1) -> Talk:
    messages = [{"role": "user", "content": question}]
    return Talk("f", line, messages + ([{"role": "assistant", "content": answer}] if answer else []), answer)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_few_answers_that_repeat_are_classes() -> None:
    assert are_classes(["a", "b"] * 5)
    assert not are_classes(["a"] * 20)
    assert not are_classes(["a", "b"] * 2)
    assert not are_classes([str(place) for place in range(300)] * 9)


def test_recorded_classes_make_a_classifier_without_labels_of_its_own(tmp_path: Path) -> None:
    rows = [talk(f"question {place}", "yes" if place % 2 else "no") for place in range(40)]
    rows += [talk("question 0", "yes"), talk("rare", "perhaps"), talk("rare too", "perhaps")]
    found = recorded(rows, OF_WORDS, tmp_path, "MIT")
    assert found.task == "classification"
    parts = {role: lines(tmp_path / f"{role}.jsonl") for role in ("train", "validation", "test")}
    assert [len(part) for part in parts.values()] == [28, 4, 8]
    assert {row["label"] for row in parts["train"]} == {None}
    assert {row["label"] for row in parts["test"]} == {"yes", "no"}
    assert not {row["text"] for row in parts["train"]} & {row["text"] for row in parts["test"]}
    assert {one.why for one in found.rejected} == {
        "another answer to a question that is there already",
        "fewer than 3 rows have this answer",
    }
    assert found.sections["teacher"]["licence"] == "MIT"
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    recorded(rows, OF_WORDS, tmp_path, "MIT")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_recorded_words_make_a_language_student(tmp_path: Path) -> None:
    rows = [talk(f"question {place}", f"answer {place}") for place in range(20)] + [talk("long", "x" * 600)]
    found = recorded(rows, OF_LETTERS, tmp_path, None)
    assert found.task == "causal"
    assert len(lines(tmp_path / "talks.jsonl")) == 20
    assert [one.why for one in found.rejected] == ["longer than the 512 bytes that this student looks at"]


def test_words_are_no_classes(tmp_path: Path) -> None:
    rows = [talk(f"question {place}", f"answer {place}") for place in range(20)]
    with pytest.raises(DataError, match="are no classes"):
        recorded(rows, OF_WORDS, tmp_path, None)
    with pytest.raises(DataError, match="0 rows are left"):
        recorded([talk("q", "x" * 600)] * 20, OF_LETTERS, tmp_path, None)


def test_questions_that_a_teacher_is_asked_want_right_answers(tmp_path: Path) -> None:
    questions = [talk(f"question {place}", None) for place in range(20)]
    right = [talk(f"right {place}", "yes" if place % 2 else "no") for place in range(20)]
    with pytest.raises(DataError, match="nothing could say how good"):
        asked(questions, [], {"kind": "openai_api"}, None, tmp_path)
    found = asked(questions, right, {"kind": "openai_api", "read": "logprobs"}, ["yes", "no"], tmp_path)
    assert found.sections["questions"]["source"]["test"] == "test.jsonl"
    assert {row["label"] for row in lines(tmp_path / "train.jsonl")} == {None}
    assert found.sections["objectives"][0]["kind"] == "soft_target"
    labelled = asked(right, [], {"kind": "openai_api"}, None, tmp_path)
    assert labelled.sections["questions"]["source"] == "rows.jsonl"
    assert labelled.sections["objectives"][0]["kind"] == "hard_label"


@pytest.mark.parametrize(
    ("suffix", "title"),
    [
        (None, ""), ("My Digits!", "My Digits!"), ("a/b\n c", "a b c"), (". .x", "x"), ("..", ""),
        ("\N{SNOWMAN}" * 70, "\N{SNOWMAN}" * 66), (" \N{GRINNING FACE}" * 64, " ".join(["\N{GRINNING FACE}"] * 40)),
    ],
)  # fmt: skip
def test_a_run_can_be_named_after_any_suffix(suffix: str | None, title: str) -> None:
    """A recipe's name has at most 200 bytes."""
    assert sources._title(suffix) == title
    assert _a_name(title or "job") == (title or "job")
