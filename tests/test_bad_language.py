"""Bad input to runs of language models: one plain error that names the place and the cure, before anything is spent."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.tiny_models import TEMPLATE, byte_pairs, write_gguf
from tokenizers import AddedToken

import stillroom
from command_line import write_csv
from stillroom.errors import DataError, DiskFull, ModelError, NotFinite, RecipeError, StillroomError, WrongAnswer
from stillroom.models import pretrained
from stillroom.rundir import read_json, write_json
from tiny_language import causal, document, write_model, write_sentences, write_text

SOFT = {"kind": "soft_target", "temperature": 1}
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
TEXT = {
    "kind": "dataset",
    "source": {"train": "train.txt", "validation": "valid.txt", "test": "test.txt"},
    "window": 32,
}
ROWS = {"kind": "dataset", "source": "sentences.csv"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny text, sentences, and a causal, a masked and a classifying model."""
    folder = tmp_path_factory.mktemp("made")
    causal(folder)
    write_sentences(folder)
    write_model(folder / "bert", "bert", layers=2)
    write_model(folder / "classifier", "bert", "classification", layers=1, id2label={0: "good", 1: "poor"})
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a test's own, with what was made; nothing in `made` is changed."""
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("STILLROOM_DATA", raising=False)
    return tmp_path / "here"


def recipe(**sections: Any) -> dict[str, Any]:
    """The causal recipe with paths from the folder itself."""
    teacher = {"kind": "transformers", "model": "llama", "task": "causal"}
    return causal(Path(), **{"questions": TEXT, "teacher": teacher, **sections})


def questions(**knobs: Any) -> dict[str, Any]:
    return {"questions": {**TEXT, **knobs}}


def fresh(**config: Any) -> dict[str, Any]:
    """A new GPT-2 that reads the teacher's tokens."""
    model = {"kind": "transformers", "task": "causal", "config": {**GPT2, **config}, "tokenizer": "llama"}
    return {"student": {"kind": "fresh", "model": model}}


def refused(tree: dict[str, Any], *told: str, kind: type[StillroomError] = StillroomError) -> str:
    """What a run is refused with, having left nothing behind."""
    with pytest.raises(kind) as error:
        stillroom.distill(tree, "run")
    line = str(error.value)
    assert all(words in line for words in told), line
    assert line.endswith(".")
    assert not Path("run").exists()
    return line


MASKED = {"kind": "transformers", "model": "bert", "task": "masked"}
PRETRAINED = {"kind": "pretrained", "from": "llama", "task": "causal"}


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        # tasks, rows and views
        ({"student": {**PRETRAINED, "task": "masked"}}, "the student is for masked and the teacher for causal (student.task)"),
        ({"student": {**PRETRAINED, "task": "classification"}}, "the student is for classification and the teacher for"),
        ({"teacher": MASKED}, "a masked model is asked for hidden tokens, and nothing hides any (questions.augment)"),
        (questions(augment=[{"kind": "mask"}]), "a causal model is asked for the next token, and the view 'mask' hides"),
        (questions(augment=[{"kind": "shift", "pixels": 1}]), "the view 'shift' is for images"),
        ({"questions": ROWS}, "a language model learns from running text, and these rows have labels (questions)"),
        (questions(window=128), "rows of 128 tokens are asked for, and the model looks at 64 at most (questions.window)"),
        (
            {"transfer_set": {"live": True}, "budget": {"teacher_tokens": 5}},
            "a live teacher is asked in each step anew, and its tokens are not counted (budget.teacher_tokens)",
        ),
        (questions(labelled=3), "labelled is about labels, and running text has none (questions.labelled)"),
        (
            {"teacher": {"kind": "transformers", "model": "classifier", "task": "classification"}},
            "these rows are running text without labels, and a classifier learns classes (questions)",
        ),
        # knobs that are for classifiers
        ({"objectives": [{**SOFT, "temperature": "auto"}]}, "a temperature is not yet chosen by itself for language"),
        ({"training": {"mixup": 0.2}, "transfer_set": {"live": True}}, "for classifiers (training.mixup)"),
        ({"training": {"class_prior": "uniform"}}, "this is for classifiers (training.class_prior)"),
        ({"transfer_set": {"wrong_classes": "uniform"}}, "this is for classifiers (transfer_set.wrong_classes)"),
        ({"evaluation": {"groups": {"a": ["b"]}}}, "this is for classifiers (evaluation.groups)"),
        ({"evaluation": {"independent_teacher": MASKED}}, "this is for classifiers (evaluation.independent_teacher)"),
        ({"objectives": [{**SOFT, "standardise": True}]}, "this is for classifiers (objectives: standardise)"),
        # what is kept does not tell what is asked of it
        (
            {"transfer_set": {"tail": "bucket"}, "objectives": [{**SOFT, "temperature": 2}]},
            "a kept tail of kind bucket does not tell the teacher's probabilities at temperature 2",
        ),
        (
            {"transfer_set": {"tail": "sample"}, "objectives": [{**SOFT, "divergence": "reverse"}]},
            "a kept tail of kind sample does not tell the teacher's probabilities at divergence reverse (objectives.0)",
        ),
        (
            {"arms": {"a": {"transfer_set": {"tail": "sample"}, "objectives": [{**SOFT, "temperature": 2}]}}},
            "(arms.a.objectives.0). Set transfer_set.tail: hidden",
        ),
        # students
        ({"student": {"kind": "shrink", "layers": [0, 5]}}, "there is no layer 5: the model has 2, 0 to 1 (student.layers)"),
        ({"student": {"kind": "shrink", "layers": 3}}, "3 of 2 layers cannot be kept (student.layers)"),
        ({"student": {"kind": "shrink", "vocabulary": "cut"}}, "cannot learn its soft targets (student.vocabulary)"),
        (
            {"student": {"kind": "lora", "from": "llama", "targets": ["q_prj"]}},
            "there is no linear layer 'q_prj' in this model (student.targets). Choose among ",
        ),
        ({"student": {**PRETRAINED, "from": "nowhere"}}, "there is no model folder 'nowhere'"),
        (fresh(n_embd=400_000, n_head=8), "Choose a smaller one"),
        (fresh(n_head=3), "transformers makes no network of this configuration: "),
        (fresh(model_type="nothing"), "transformers makes no network of this configuration: "),
        (fresh(vocab_size=400), "it gives 400 logits a position and the teacher 300, though they read the same tokens"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_work(sections: dict[str, Any], told: str, here: Path) -> None:
    refused(recipe(**sections), told)


def test_a_language_model_as_the_student_of_a_classifier(here: Path) -> None:
    teacher = {"kind": "transformers", "model": "classifier", "task": "classification"}
    told = "the student is for causal and the teacher for classification (student.task)"
    refused(recipe(questions=ROWS, teacher=teacher, student=PRETRAINED), told, kind=RecipeError)


# tokenizers


def renamed(tokenizer: Any) -> Any:
    """One token of the vocabulary, that nothing is merged from, is called otherwise."""
    return changed(tokenizer, lambda tree: rename(tree["model"]["vocab"], "[UNK]", "[UNKNOWN]", tree))


def rename(vocab: dict[str, int], old: str, new: str, tree: dict[str, Any]) -> None:
    vocab[new] = vocab.pop(old) if old in vocab else 1
    for token in tree["added_tokens"]:
        token["content"] = new if token["content"] == old else token["content"]


def longer(tokenizer: Any) -> Any:
    tokenizer.add_tokens([AddedToken("<more>", special=True)])
    return tokenizer


def changed(tokenizer: Any, change: Callable[[dict[str, Any]], None]) -> Any:
    import transformers
    from tokenizers import Tokenizer

    tree = json.loads(tokenizer.backend_tokenizer.to_str())
    change(tree)
    made = Tokenizer.from_str(json.dumps(tree))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", eos_token="<|end|>")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (renamed, "the vocabularies differ in 2 tokens, first '[UNK"),
        (
            longer,
            "the vocabularies differ in 1 tokens, first '<more>' is absent for the teacher and 300 for the student",
        ),
    ],
)
def test_a_student_that_reads_other_tokens(change: Callable[[Any], Any], told: str, here: Path) -> None:
    write_model(here / "other", "llama", tokenizer=change(byte_pairs(300)), layers=1)
    tree = recipe(student={"kind": "pretrained", "from": "other", "task": "causal"})
    refused(tree, told, "(student, the teacher's and the student's tokenizer)", kind=ModelError)
    # An arm's teacher is asked about the run's windows, so it must read the same tokens too.
    arms = {"b": {"teacher": {"kind": "transformers", "model": "other", "task": "causal"}}}
    refused(recipe(arms=arms), told, "(arms.b.teacher, ", kind=ModelError)


def test_a_merge_that_differs(here: Path) -> None:
    def change(tree: dict[str, Any]) -> None:
        tree["model"]["merges"][3], tree["model"]["merges"][4] = tree["model"]["merges"][4], tree["model"]["merges"][3]

    write_model(here / "other", "llama", tokenizer=changed(byte_pairs(300), change), layers=1)
    told = refused(recipe(student={"kind": "pretrained", "from": "other", "task": "causal"}), "(student, ")
    assert "merge differently" in told or "encoded differently" in told


# conversations and prompts

DROPS = TEMPLATE.replace("message['content']", "message['content'].split('</think>')[-1]")


def conversations(folder: Path, said: str, template: str | None = TEMPLATE) -> dict[str, Any]:
    """A recipe over conversations in which the assistant says this."""
    lines = [
        {"messages": [{"role": "user", "content": f"what is {place}"}, {"role": "assistant", "content": said}]}
        for place in range(30)
    ]
    (folder / "chat.jsonl").write_text("\n".join(map(json.dumps, lines)))
    write_model(folder / "chatty", "llama", tokenizer=byte_pairs(300, template), layers=2)
    teacher = {"kind": "transformers", "model": "chatty", "task": "causal"}
    return recipe(questions={"kind": "dataset", "source": "chat.jsonl", "window": 32}, teacher=teacher)


def test_a_chat_template_that_drops_a_part(here: Path) -> None:
    tree = conversations(here, "<think>it was</think>a bad film", DROPS)
    refused(
        tree,
        "the chat template leaves out a part of this message",
        "row 1, message 2, assistant: '<think>",
        kind=DataError,
    )


def test_a_model_without_a_chat_template(here: Path) -> None:
    refused(conversations(here, "a bad film", None), "this tokenizer has no chat template", kind=ModelError)


def test_a_conversation_longer_than_a_row(here: Path) -> None:
    told = refused(conversations(here, document(1, 40)), "this conversation has ", "it is not cut", kind=DataError)
    assert "questions.source, " in told


def test_conversations_that_fit_are_learned_from(here: Path) -> None:
    run = stillroom.distill(conversations(here, "a bad film"), here / "run", until="train")
    student = stillroom.load_student(run.path)
    with pytest.raises(DataError, match=r"a prompt of .* tokens and 8 to write, and the model looks at 64"):
        student.generate([document(2, 40)], 8)


# model folders


def pickled(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def coded(folder: Path) -> None:
    (folder / "modeling_own.py").write_text("print('run')\n")


def mapped(folder: Path) -> None:
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "auto_map": {"AutoModel": "own.Own"}})


def weightless(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_short(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def of_no_type(folder: Path) -> None:
    write_json(folder / "config.json", {"model_type": "nothing"})


@pytest.mark.parametrize("place", ["teacher", "student"])
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (pickled, "this model folder holds a pickle, which can run code when it is read"),
        (coded, "this model folder holds code"),
        (mapped, "this model wants to run code of its own (auto_map)"),
        (weightless, "there are no weights in the safetensors format"),
        (cut_short, "transformers cannot read this model: "),
        (no_tokenizer, "there is no tokenizer beside the weights"),
        (of_no_type, "transformers cannot read this model: "),
    ],
)
def test_a_model_folder_that_is_refused(place: str, damage: Callable[[Path], None], told: str, here: Path) -> None:
    shutil.copytree(here / "llama", here / "bad")
    damage(here / "bad")
    if place == "teacher":
        tree = recipe(teacher={"kind": "transformers", "model": "bad", "task": "causal"}, student=PRETRAINED)
    else:
        tree = recipe(student={**PRETRAINED, "from": "bad"})
    line = refused(tree, told, kind=ModelError)
    assert "bad" in line


def test_a_gguf_file_that_is_cut_short(here: Path) -> None:
    write_gguf(here / "tiny.gguf")
    content = (here / "tiny.gguf").read_bytes()
    (here / "tiny.gguf").write_bytes(content[:-1000])
    tree = recipe(teacher={"kind": "transformers", "model": "tiny.gguf", "task": "causal"})
    refused(tree, "this GGUF file is cut short: ", "tiny.gguf", kind=ModelError)


# answers


def spoil(folder: Path, token: int | None) -> None:
    """Weights that make NaN of everything, or of texts with one token in them."""
    model, tokenizer = pretrained.load(folder, "causal")
    with torch.no_grad():
        if token is None:
            model.model.norm.weight.fill_(float("nan"))
        else:
            model.model.embed_tokens.weight[token] = float("nan")
    pretrained.save(model, tokenizer, folder)


def test_a_teacher_that_answers_nan(here: Path) -> None:
    spoil(here / "llama", None)
    told = "a LlamaForCausalLM answers NaN to a few tokens (model type llama). Look at its weights"
    refused(recipe(student={"kind": "shrink", "layers": 1}), told, kind=ModelError)


def test_a_teacher_that_answers_nan_to_the_first_rows(here: Path) -> None:
    token = byte_pairs(300)("\n")["input_ids"][0]
    spoil(here / "llama", token)
    refused(recipe(**fresh()), "the teacher's answer to the first rows is not finite (teacher)", kind=ModelError)


@pytest.mark.parametrize("tail", ["hidden", "bucket"])
def test_a_teacher_that_answers_nan_to_one_row(tail: str, here: Path) -> None:
    token = byte_pairs(300)("Q")["input_ids"][0]
    spoil(here / "llama", token)
    (here / "train.txt").write_text((here / "train.txt").read_text() + "and Q\n\n")
    with pytest.raises(NotFinite):
        stillroom.distill(recipe(**fresh(), transfer_set={"tail": tail}), here / "run")
    assert not list((here / "run").rglob("records.u8"))


def test_answers_of_another_teacher_tokenizer_or_template_are_not_mixed(here: Path) -> None:
    tree = recipe(transfer_set={"tail": "bucket", "store": "store"})
    stillroom.distill({**tree, "name": "a"}, here / "a", until="ask")
    (header,) = (here / "store").glob("*/teacher.json")
    model, tokenizer = pretrained.load(here / "llama", "causal")
    tokenizer.chat_template = TEMPLATE + " "
    pretrained.save(model, tokenizer, here / "llama")
    stillroom.distill({**tree, "name": "b"}, here / "b", until="ask")
    assert len(list((here / "store").glob("*/teacher.json"))) == 2
    for one in (here / "store").glob("*/teacher.json"):
        write_json(one, {**read_json(one), "fingerprint": "0" * 64})
    with pytest.raises(WrongAnswer, match="these answers are of another teacher"):
        stillroom.distill({**tree, "name": "c"}, here / "c", until="ask")
    assert header.is_file()


def test_a_full_disk_keeps_what_was_asked(here: Path) -> None:
    """/dev/full is a real device on which every write ends in ENOSPC."""
    tree = recipe(transfer_set={"tail_bytes": 4})
    stillroom.distill(tree, here / "run", until="ask")
    (basis,) = (here / "run").glob("transfer_set/*/basis.safetensors")
    basis.unlink()
    staged = basis.with_name(basis.name + ".staged")
    staged.symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="no room left on the disk"):
        stillroom.distill(tree, here / "run", until="ask")
    staged.unlink()
    records = next((here / "run").rglob("records.u8"))
    before = records.stat().st_mtime_ns
    stillroom.distill(tree, here / "run", until="ask")
    assert basis.is_file()
    assert records.stat().st_mtime_ns == before


# a machine without the library

BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("transformers", "tokenizers", "peft"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
sys.argv = ["stillroom", "distill", "tiny.yaml"]
from stillroom import cli
cli.main()
"""


def test_a_machine_without_transformers(here: Path) -> None:
    (here / "tiny.yaml").write_text(json.dumps(recipe()))
    found = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert "need the Python package 'transformers', which is not installed" in line
    assert "pip install stillroom[language]" in line
    assert not (here / "runs").exists()


def test_labels_beside_running_text(here: Path) -> None:
    """A language model takes no labels, neither those of a table nor those of one of its parts."""
    write_csv(here / "labelled.csv", [{"text": document(place, 9), "label": place % 2} for place in range(30)])
    refused(recipe(questions={"kind": "dataset", "source": "labelled.csv"}), "these rows have labels", kind=DataError)
    source = {**write_text(here), "test": "labelled.csv"}
    told = "test is not of the same form as train: columns text and no label (labelled.csv)"
    refused(recipe(questions={"kind": "dataset", "source": source}), told, kind=DataError)


def test_a_student_that_cannot_look_at_a_whole_window(here: Path) -> None:
    line = refused(recipe(**fresh(n_positions=16)), "32 tokens", "looks at 16", "student", kind=ModelError)
    assert "questions.window: 16" in line


def test_a_basis_that_is_not_the_answers(here: Path) -> None:
    stillroom.distill(recipe(), "run", until="ask")
    (found,) = Path("run/transfer_set").glob("*/basis.safetensors")
    found.unlink()
    with pytest.raises(StillroomError, match=r"basis|another teacher"):
        stillroom.distill(recipe(questions={**TEXT, "window": 24}), "run")
