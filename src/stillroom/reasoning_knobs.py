"""The knobs of learning from how a teacher reasons: the section `traces:` of a recipe. Knows no stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stillroom.kinds import AnyTeacher, Knobs

Learn = Literal["trace", "answer", "gold", "filler", "shuffled", "rationale"]
Outcomes = Literal["accepted", "every", "rejected"]
Length = Literal["first", "short", "long", "mixed"]


class Expect(Knobs):
    """Figures that `check` reckons with while data, weights, a key or accepted terms are not here yet."""

    questions: int = Field(ge=1)
    """To learn from; where their files are here they are counted."""
    question_tokens: int = Field(default=128, ge=1)
    """Of a question; where the files are here their bytes tell."""
    trace_tokens: int = Field(ge=1)
    """That the teacher writes for a sample, on average."""
    accepted: float = Field(default=0.3333, gt=0, le=1)
    """Share of samples."""
    parameters: float = Field(gt=0)
    """Weights of the student, such as 32.8e9."""
    tflops: float = Field(default=400.0, gt=0)
    """What the machine of evaluation.price reaches in training, in 10^12 operations a second."""


class Traces(Knobs):
    """How a teacher's reasoning is sampled, which of it is kept, and what of it a student is taught."""

    samples: int = Field(default=4, ge=1, le=1000)
    """Most answers that are sampled for a question."""
    keep: int = Field(default=1, ge=1, le=1000)
    """Accepted answers of a question that are enough: then it is sampled no more."""
    overlap: int = Field(default=8, ge=0)
    """Words in a row that a training question may not share with a test question; 0: only the whole question counts."""
    score: int | None = Field(default=None, ge=0)
    """Test questions that the teacher is asked too, once each, to be compared with its students; none: all of them."""
    rewrite: AnyTeacher | None = None
    """A teacher of kind openai_api that writes accepted traces again, thought and solution apart; each is one more call."""
    of: Outcomes = "accepted"
    """Which traces are learned from: accepted ones, every complete one whatever the verifier says, or rejected ones."""
    length: Length = "first"
    """Which traces of a question come first: those sampled first, the shortest, the longest, or the longest for one question
    in five and the shortest for the others."""
    count: int | None = Field(default=None, ge=1)
    """Traces of a question that are learned from; none: all that are there."""
    shorten: Literal[0, 1, 2] = 0
    """Cut a thought after the first or the second place where it has the right answer; 0: not at all."""
    learn: Learn = "trace"
    """What is taught: the whole trace, its answer alone, the gold answers of all questions, filler of the thought's length
    and the answer, the thought with its steps in another order, or thought and answer as two tasks, of which only the
    answer is asked for afterwards."""
    equal: Literal["steps", "tokens"] = "steps"
    """Of an arm: train for as many steps as the student, or until as many tokens were read."""
    expect: Expect | None = None
    """What is expected of all this, so that `check` can tell the cost before data, weights and keys are here; none: they are
    looked at."""
    write: int | None = Field(default=None, ge=1)
    """Most tokens that a student may write in answer to a test question; none: twice what it was taught at most."""
