"""The shipped recipe for masked models, changed as its own comment says for a larger BERT."""

from __future__ import annotations

import shlex
from pathlib import Path

from stillroom.progress import Silent
from stillroom.recipe import Recipe
from stillroom.rundir import RunDir
from stillroom.stages.language_checks import built_bare
from stillroom.stages.opening import Run, check_data, clock_of, look_in
from tiny_language import write_model, write_text

FILE = Path(__file__).parents[1] / "recipes" / "masked_lm.yaml"


def test_the_recipe_halves_a_bert_of_twelve_layers(tmp_path: Path) -> None:
    comment = [line.removeprefix("#") for line in FILE.read_text().splitlines() if line.startswith("#  ")]
    program, command, file, *overrides = shlex.split(" ".join(comment))
    assert (program, command, file) == ("stillroom", "distill", "recipes/masked_lm.yaml")
    bert = write_model(tmp_path / "bert", "bert", "masked", layers=12)
    assert sum("hf:google-bert/bert-base-uncased" in one for one in overrides) == 1
    here = [one.replace("hf:google-bert/bert-base-uncased", bert) for one in overrides]
    sources = write_text(tmp_path)
    here += [f"questions.source={{train: {sources['train']}, test: {sources['test']}}}", "questions.window=32"]
    recipe = Recipe.load(FILE, here)
    recipe.check()
    run = Run(recipe, RunDir(tmp_path / "run"), look_in(tmp_path), Silent(), clock_of(recipe, tmp_path))
    assert check_data(run) == []
    assert built_bare(run, recipe.student).depth[0] == 6
    assert recipe.training.learning_rate == 2e-4
    assert recipe.name != Recipe.load(FILE).name
    assert [one.kind for one in recipe.objectives] == ["soft_target", "hard_label", "hidden"]
