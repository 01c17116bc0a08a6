"""The experiments of Hinton, Vinyals and Dean (2015) on MNIST as Stillroom recipes, in three sizes.

Every number here was chosen on validation rows: 5,000 rows of the 60,000 training rows, never trained on while choosing.
The sizes differ in patience alone: `smoke` shows in a minute that everything runs, `time` fits an hour and a half of one
core without bfloat16, `full` takes the time that is needed. The last epoch is used, never the best on test.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

Tree = dict[str, Any]

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
METRICS = ["accuracy", "agreement", "calibration", "size"]
TEACHER = "teacher/teacher"
"""Where the teacher that all experiments share stands, in a preset's folder."""
TEMPERATURES = (1, 2, 3, 4, 8, 20)


@dataclass(frozen=True)
class Sizes:
    """What a preset decides: rows, seeds and epochs, nothing else."""

    mnist: str = "mnist.npz"
    photos: str = "photos.npz"
    seeds: int = 5
    many_seeds: int = 10
    teacher_epochs: int = 80
    student_epochs: int = 10
    mixed_epochs: int = 10
    omit_epochs: int = 6
    only_epochs: int = 10
    few_rows: int = 1800
    few_rows_validation: int = 1000
    few_rows_epochs: int = 50
    few_rows_views: int = 25
    labels: int = 1800
    members: int = 10
    member_epochs: int = 20
    gain_epochs: int = 20
    few_labels: int = 1800
    few_labels_rows: int = 10_000
    few_labels_validation: int = 1000
    few_labels_members: int = 5
    few_labels_epochs: int = 15
    photo_validation: int = 600
    photo_members: int = 3
    photo_member_epochs: int = 10
    photo_epochs: int = 8
    thirty_epochs: int = 20
    thirty_seeds: int = 3
    thirty_validation: int = 5000


PRESETS = {
    "smoke": Sizes(
        mnist="data/smoke.npz", photos="data/smoke_photos.npz", seeds=2, many_seeds=2, teacher_epochs=1,
        student_epochs=1, mixed_epochs=1, omit_epochs=1, only_epochs=2, few_rows=300, few_rows_validation=100,
        few_rows_epochs=2, few_rows_views=2,
        labels=200, members=2, member_epochs=2, gain_epochs=1, few_labels_rows=500, few_labels_validation=200,
        few_labels=200, few_labels_members=2, few_labels_epochs=2, photo_validation=60,
        photo_members=2, photo_member_epochs=1, photo_epochs=1,
        thirty_epochs=1, thirty_seeds=2, thirty_validation=300,
    ),
    "time": Sizes(),
    "full": Sizes(
        teacher_epochs=300, student_epochs=20, mixed_epochs=60, omit_epochs=20, only_epochs=20,
        few_rows_epochs=400, few_rows_views=100, gain_epochs=60, few_labels_epochs=30,
        photo_member_epochs=60, photo_epochs=60, photo_members=5, thirty_epochs=60, thirty_seeds=5,
    ),
}  # fmt: skip


def mlp(*hidden: int, **knobs: float) -> Tree:
    """A network of these hidden widths."""
    return {"kind": "mlp", "hidden": list(hidden), **knobs}


def _questions(source: str, **knobs: Any) -> Tree:
    return {"kind": "dataset", "source": source, "scale": "unit", **knobs}


def _recipe(name: str, seeds: int, questions: Tree, teacher: Tree, student: Tree, training: Tree, heat: float) -> Tree:
    return {
        "name": f"bench-hinton-{name}",
        "seeds": seeds,
        "questions": questions,
        "teacher": teacher,
        "student": {"kind": "fresh", "model": student},
        "objectives": [{"kind": "soft_target", "temperature": heat}],
        "training": training,
        "evaluation": {"metrics": METRICS},
    }


def _shared_teacher() -> Tree:
    return {"kind": "saved", "model": TEACHER}


def _training(epochs: int, **knobs: Any) -> Tree:
    return {"epochs": epochs, "batch_size": 128, "learning_rate": 3e-3, **knobs}


def _all_rows(sizes: Sizes, **knobs: Any) -> Tree:
    """All training rows but a hundred, which draw the curves and choose nothing."""
    return _questions(sizes.mnist, split={"validation": 100}, **knobs)


def teacher(sizes: Sizes) -> Tree:
    """784-1200-1200-10 with dropout, bounded weights and jitter of 2 pixels; only its teacher is trained."""
    model = mlp(1200, 1200, dropout=0.5, input_dropout=0.2)
    trained = {
        "kind": "trained", "model": model, "augment": [{"kind": "shift", "pixels": 2}],
        "epochs": sizes.teacher_epochs, "batch_size": 256, "learning_rate": 1e-3, "max_norm": 2.0,
    }  # fmt: skip
    return _recipe("teacher", 1, _all_rows(sizes), trained, mlp(30, 30), _training(1), 20)


def student(sizes: Sizes) -> Tree:
    """784-800-800-10 from the teacher's answers at T = 20 alone: rows as they are, and rows mixed in pairs.

    A mixed row is one that the teacher never saw; asked about it, it shows what it does between the rows that it knows by
    heart (mixup: Zhang and others 2017, arXiv:1710.09412; as distillation: Beyer and others 2021, arXiv:2106.05237).
    """
    recipe = _recipe(
        "student", sizes.seeds, _all_rows(sizes), _shared_teacher(), mlp(800, 800), _training(sizes.student_epochs), 20
    )
    mixed = {"training": {"mixup": 1.0, "epochs": sizes.mixed_epochs}, "transfer_set": {"live": True}}
    labels = {**mixed, "objectives": [{"kind": "hard_label"}]}
    return recipe | {"arms": {"mixed": mixed, "mixed_labels": labels}}


def omit_3(sizes: Sizes) -> Tree:
    """No 3 in the transfer set; then the class biases are moved by the label-free rule.

    One arm shuffles what the teacher says of the wrong classes: if it knew 3s too, something else would have shown them.
    """
    training = _training(sizes.omit_epochs, class_prior="labels")
    questions = _all_rows(sizes, omit=[3])
    recipe = _recipe("omit_3", sizes.seeds, questions, _shared_teacher(), mlp(800, 800), training, 20)
    return recipe | {"arms": {"permuted": _spoiled()["permuted"]}}


def only_78(sizes: Sizes) -> Tree:
    """Nothing but 7s and 8s in the transfer set."""
    training = _training(sizes.only_epochs, class_prior="labels")
    questions = _all_rows(sizes, omit=[0, 1, 2, 3, 4, 5, 6, 9])
    return _recipe("only_78", sizes.seeds, questions, _shared_teacher(), mlp(800, 800), training, 20)


def _spoiled() -> Tree:
    """The arms that spoil what the teacher says of the wrong classes."""
    return {
        "smoothed": {"transfer_set": {"wrong_classes": "uniform"}},
        "permuted": {"transfer_set": {"wrong_classes": "permuted"}},
    }


def three_percent(sizes: Sizes) -> Tree:
    """3 % of the rows: soft targets of the teacher that saw all labels, against those rows' labels, stopped early.

    Every student sees the rows moved by up to 2 pixels, as the teacher did; the two `plain` arms see them as they are, the
    two `mixed` ones mixed in pairs as well, the teacher asked about what comes of that.
    """
    moved = {"augment": [{"kind": "shift", "pixels": 2}], "views": sizes.few_rows_views}
    recipe = _recipe(
        "three_percent", sizes.seeds, _questions("data/few_rows.npz", **moved), _shared_teacher(), mlp(800, 800),
        _training(sizes.few_rows_epochs, batch_size=64, learning_rate=2e-3), 20,
    )  # fmt: skip
    early: Tree = {"objectives": [{"kind": "hard_label"}], "training": {"patience": 10}}
    plain = {"questions": {"augment": [], "views": 1}}
    mixed: Tree = {"training": {"mixup": 1.0}, "transfer_set": {"live": True}}
    mixed_early = {**mixed, **early, "training": {**mixed["training"], **early["training"]}}
    arms = {"early_stopped": early, "plain_soft": plain, "plain_early_stopped": {**plain, **early}, "mixed": mixed,
            "mixed_early_stopped": mixed_early,
            "mixed_labels": {**mixed, "objectives": early["objectives"]}}  # fmt: skip
    return recipe | {"arms": arms}


def ensemble_gain(sizes: Sizes) -> Tree:
    """Ten networks of the student's architecture on 1,800 labels, into one by way of all other rows without labels.

    Plain wide members differ too little for an ensemble to gain; half of the pixels dropped makes each better by itself
    and the ten of them more different.
    """
    member = {
        "kind": "trained", "model": mlp(200, 200, input_dropout=0.5), "epochs": sizes.member_epochs, "batch_size": 32,
        "learning_rate": 5e-3,
    }  # fmt: skip
    ensemble = {"kind": "ensemble", "size": sizes.members, "member": member}
    questions = _all_rows(sizes, labelled=sizes.labels)
    return _recipe("ensemble_gain", sizes.seeds, questions, ensemble, mlp(200, 200), _training(sizes.gain_epochs), 2)


def few_labels(sizes: Sizes) -> Tree:
    """Few-label MNIST: an ensemble learns from 1,800 labels and answers 8,200 other rows."""
    member = {
        "kind": "trained", "model": mlp(200, 200, input_dropout=0.5), "epochs": sizes.member_epochs, "batch_size": 32,
        "learning_rate": 5e-3,
    }  # fmt: skip
    ensemble = {"kind": "ensemble", "size": sizes.few_labels_members, "member": member}
    recipe = _recipe(
        "few_labels", sizes.many_seeds, _questions("data/few_labels.npz", labelled=sizes.few_labels), ensemble,
        mlp(200, 200), _training(sizes.few_labels_epochs), 1,
    )  # fmt: skip
    independent = {"metrics": METRICS, "independent_teacher": _shared_teacher()}
    return recipe | {"arms": _spoiled(), "evaluation": independent}


def photos(sizes: Sizes) -> Tree:
    """The photographs of recipes/photos.yaml, with the arms."""
    import yaml

    recipe: Tree = yaml.safe_load((RECIPES / "photos.yaml").read_text())
    ensemble = recipe["teacher"]
    ensemble |= {"size": sizes.photo_members, "member": ensemble["member"] | {"epochs": sizes.photo_member_epochs}}
    return recipe | {
        "name": "bench-hinton-photos",
        "seeds": sizes.many_seeds,
        "questions": recipe["questions"] | {"source": sizes.photos, "split": {"validation": sizes.photo_validation}},
        "training": recipe["training"] | {"epochs": sizes.photo_epochs},
        "evaluation": {"metrics": METRICS, "groups": recipe["evaluation"]["groups"]},
        "arms": _spoiled(),
    }


def thirty_units(sizes: Sizes) -> Tree:
    """784-30-30-10 at several temperatures; the best is chosen on 5,000 rows of train that no student sees."""
    questions = _questions(sizes.mnist, split={"validation": sizes.thirty_validation})
    *others, last = TEMPERATURES
    recipe = _recipe(
        "thirty_units",
        sizes.thirty_seeds,
        questions,
        _shared_teacher(),
        mlp(30, 30),
        _training(sizes.thirty_epochs),
        last,
    )
    arms = {f"T{heat}": {"objectives": [{"kind": "soft_target", "temperature": heat}]} for heat in others}
    return recipe | {"arms": arms}
