"""References to models: a path, inside a package, on the hub."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stillroom.errors import ModelError
from stillroom.models.references import resolve


def test_a_path_is_looked_for_in_the_folders_in_order(tmp_path: Path) -> None:
    (tmp_path / "a" / "model").mkdir(parents=True)
    (tmp_path / "b" / "model").mkdir(parents=True)
    (tmp_path / "b" / "small.gguf").write_bytes(b"")
    (tmp_path / "b" / "notes.txt").write_text("")
    folders = [tmp_path / "a", tmp_path / "b"]
    assert resolve("model", folders) == tmp_path / "a" / "model"
    assert resolve("small.gguf", folders) == tmp_path / "b" / "small.gguf"
    assert resolve(str(tmp_path / "b" / "model"), folders) == tmp_path / "b" / "model"
    for absent in ("notes.txt", "other", str(tmp_path / "other")):
        with pytest.raises(ModelError, match="there is no model folder"):
            resolve(absent, folders)


def test_weights_inside_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights_here" / "model").mkdir(parents=True)
    (tmp_path / "weights_here" / "__init__.py").write_text("raise RuntimeError('it was imported')")
    (tmp_path / "weights_here" / "small.gguf").write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve("package:weights_here/model", []) == tmp_path / "weights_here" / "model"
    assert resolve("package:weights_here/small.gguf", []) == tmp_path / "weights_here" / "small.gguf"
    assert resolve("package:weights_here", []) == tmp_path / "weights_here"
    for inside in ("other", "__init__.py", "../weights_here/model"):
        with pytest.raises(ModelError, match=r"has no folder or \.gguf file"):
            resolve(f"package:weights_here/{inside}", [])
    for module in ("not_there_at_all", "not_there.inside", "no-name", ""):
        with pytest.raises(ModelError, match="is not installed"):
            resolve(f"package:{module}/model", [])


def in_the_cache(home: Path, name: str, *files: str) -> Path:
    """A repository as the hub's cache keeps it."""
    snapshot = home / "hub" / ("models--" + name.replace("/", "--")) / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for file in files:
        (snapshot / file).write_text("{}")
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    return snapshot


def asked(home: Path, reference: str) -> subprocess.CompletedProcess[str]:
    """Resolve in a process of its own, as the hub's library reads its settings when it is imported."""
    code = f"from stillroom.models.references import resolve; print(resolve({reference!r}, []))"
    environment = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PATH": ""}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


def test_a_model_of_the_hub_comes_from_the_cache_without_a_network(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="models of the hub need the huggingface_hub package")
    there = in_the_cache(tmp_path, "some-lab/small-model", "config.json", "model.safetensors")
    assert asked(tmp_path, "hf:some-lab/small-model").stdout.strip() == str(there)
    assert asked(tmp_path, f"hf:some-lab/small-model@{'a' * 40}").stdout.strip() == str(there)
    told = asked(tmp_path, "hf:some-lab/other-model").stderr
    assert "ModelError: the model cannot be fetched from the hub:" in told
    assert "(hf:some-lab/other-model). Check name and network" in told
    in_the_cache(tmp_path, "some-lab/pickled", "config.json", "pytorch_model.bin")
    assert "holds a pickle" in asked(tmp_path, "hf:some-lab/pickled").stderr


@pytest.mark.parametrize("name", ["hf:a/b/c/d", "hf:", "hf:../x", "hf:/etc", "hf:a b"])
def test_what_is_no_repository_is_refused(name: str) -> None:
    pytest.importorskip("huggingface_hub", reason="models of the hub need the huggingface_hub package")
    with pytest.raises(ModelError, match=r"cannot be fetched from the hub|is no repository of the hub"):
        resolve(name, [])


def test_references_load_nothing_heavy() -> None:
    code = "import sys, stillroom.models.references; print(sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not [heavy for heavy in ("'torch'", "'transformers'", "'huggingface_hub'") if heavy in found]
