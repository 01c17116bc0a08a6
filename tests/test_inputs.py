"""What is learned of raw rows, and every way of handing rows over."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from stillroom.columns import tidy
from stillroom.errors import DataError, ModelError
from stillroom.inputs import Images, Numbers, Table, from_json, learn
from stillroom.rows import Raw, content_keys, take_rows

WORDS = ["when", "are", "bears", "and", "eagles", "quirkily", "appealing", "a", "charming", "journey", "of", "wheels"]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


def some_texts(rng: np.random.Generator, count: int) -> np.ndarray:
    texts = [" ".join(rng.choice(WORDS, 8)) + f" {row}" for row in range(count)]
    return np.array(texts, dtype=object)


def some_table(rng: np.random.Generator, count: int = 60) -> Raw:
    return {
        "age": rng.normal(40, 12, count),
        "colour": rng.choice(np.array(["red", "green", "blue"], object), count),
        "story": some_texts(rng, count),
        "count": rng.integers(0, 9, count).astype(np.float64),
    }


def some_numbers(rng: np.random.Generator) -> Raw:
    return rng.normal(3, 5, (50, 4))


def some_images(rng: np.random.Generator) -> Raw:
    return rng.integers(0, 256, (30, 6, 5, 3), dtype=np.uint8)


KINDS = pytest.mark.parametrize("make", [some_table, some_numbers, some_images])


@KINDS
def test_inputs_survive_json_with_the_same_codes_and_fingerprint(make: Any, rng: np.random.Generator) -> None:
    raw = make(rng)
    learned = learn(raw)
    again = from_json(json.loads(json.dumps(learned.to_json())))
    assert again == learned
    assert again.fingerprint == learned.fingerprint
    np.testing.assert_array_equal(again.encode(raw), learned.encode(raw))
    assert learn(make(rng)).fingerprint != learned.fingerprint


@KINDS
def test_a_row_is_encoded_the_same_in_any_batch(make: Any, rng: np.random.Generator) -> None:
    raw = make(rng)
    learned = learn(raw)
    whole = learned.encode(raw)
    assert whole.dtype == np.float32
    assert whole.shape[1:] == learned.shape
    index = rng.permutation(len(whole))[:7]
    np.testing.assert_array_equal(learned.encode(take_rows(raw, index)), whole[index])
    assert learned.encode(take_rows(raw, index[:0])).shape == (0, *learned.shape)


def test_numbers_are_brought_to_mean_0_and_deviation_1(rng: np.random.Generator) -> None:
    raw = rng.normal([1e6, -3, 0], [1e-2, 40, 1], (500, 3))
    encoded = learn(raw).encode(raw)
    np.testing.assert_allclose(encoded.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(encoded.std(0), 1, atol=1e-5)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9 + 0.3])
def test_a_constant_column_has_deviation_1_and_encodes_to_0(constant: float, rng: np.random.Generator) -> None:
    raw = np.column_stack([np.full(33, constant), rng.normal(size=33)])
    learned = learn(raw)
    assert isinstance(learned, Numbers)
    assert learned.std_D[0] == 1
    assert (learned.encode(raw)[:, 0] == 0).all()


def test_images_are_scaled_by_channel(rng: np.random.Generator) -> None:
    raw = some_images(rng)
    standard, unit = learn(raw), learn(raw, "unit")
    assert standard.shape == unit.shape == (3, 6, 5)
    encoded = standard.encode(raw)
    np.testing.assert_allclose(encoded.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(encoded.std((0, 2, 3)), 1, atol=1e-5)
    np.testing.assert_allclose(unit.encode(raw), raw.transpose(0, 3, 1, 2) / 255, atol=1e-6)


def test_grey_images_get_one_channel_and_a_blank_one_is_no_division_by_0() -> None:
    blank = np.full((4, 3, 2), 7, np.uint8)
    assert learn(blank).shape == (1, 3, 2)
    assert (learn(blank).encode(blank) == 0).all()


def test_the_kind_of_each_column(rng: np.random.Generator) -> None:
    learned = learn(some_table(rng))
    assert isinstance(learned, Table)
    assert [column.kind for column in learned.columns] == ["number", "category", "text", "number"]
    assert learned.column_names == ("age", "colour", "story", "count")
    assert learned.shape == (1 + 3 + 2**12 + 1,)


def test_numbers_written_as_text_are_numbers_and_booleans_too() -> None:
    raw = tidy({"x": np.array([" 1", "2e3", "-.5"], object), "b": np.array(["true", "false", "true"], object)})
    assert isinstance(raw, dict)
    assert raw["x"].tolist() == [1, 2000, -0.5]
    assert raw["b"].tolist() == [1, 0, 1]
    assert tidy({"b": np.array([True, False])})["b"].tolist() == [1, 0]  # type: ignore[call-overload]
    assert [c.kind for c in learn({"x": np.array(["1", "2"])}).columns] == ["number"]  # type: ignore[attr-defined]


def test_a_category_that_looks_like_numbers_in_the_rows_learned_stays_one() -> None:
    raw = tidy({"cabin": np.array(["1", "2", "3A"], object)})
    learned = learn(take_rows(raw, np.array([0, 1])))
    np.testing.assert_array_equal(learned.encode(raw), [[1, 0], [0, 1], [0, 0]])


def test_an_unknown_or_empty_category_sets_no_input() -> None:
    learned = learn({"c": np.array(["a", "b", "a"], object)})
    np.testing.assert_array_equal(learned.encode({"c": np.array(["b", "z", None], object)}), [[0, 1], [0, 0], [0, 0]])


def test_texts_with_the_same_words_are_near_and_have_length_1(rng: np.random.Generator) -> None:
    texts = np.array(
        ["a charming and affecting journey", "an affecting and charming journey", "quirkily dull bears"], object
    )
    learned = learn({"text": some_texts(rng, 40)})
    code = learned.encode({"text": texts})
    np.testing.assert_allclose((code**2).sum(1), 1, atol=1e-5)
    assert code[0] @ code[1] > 0.3 > code[0] @ code[2]


def test_short_texts_are_texts_where_they_are_named() -> None:
    raw = {
        "text": np.array(["card lost", "card stolen", "lost a card", "pin"], object),
        "city": np.array(["x"] * 4, object),
    }
    assert [column.kind for column in learn(raw).columns] == ["category", "category"]  # type: ignore[attr-defined]
    found = learn(raw, texts=["text"])
    assert [column.kind for column in found.columns] == ["text", "category"]  # type: ignore[attr-defined]
    codes_ND = found.encode({"text": np.array(["a lost card"], object), "city": np.array(["x"], object)})
    assert codes_ND[0, :-1].any(), "words that training had are known again in another order"
    with pytest.raises(DataError, match=r"no input 'txt' \(questions\.texts\)\. Did you mean 'text'"):
        learn(raw, texts=["txt"])


def test_too_many_categories_say_so_and_how_to_mend() -> None:
    names = np.array([f"n{row}" for row in range(1001)], object)
    with pytest.raises(DataError, match=r"1,001 different values.*column name.*questions\.input"):
        learn({"name": names})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_named_by_row_and_column(value: float, rng: np.random.Generator) -> None:
    raw = some_numbers(rng)
    learned = learn(raw)
    raw[6, 2] = value
    for use in (learned.encode, learn, tidy):
        with pytest.raises(DataError, match="row 7, column 3"):
            use(raw)
    table = some_table(rng)
    assert isinstance(table, dict)
    known = learn(table)
    table["age"][16] = value
    for use in (known.encode, learn, tidy):
        with pytest.raises(DataError, match="row 17, column age"):
            use(table)


def test_a_value_far_outside_float32_is_an_error_and_no_warning(rng: np.random.Generator) -> None:
    raw = some_numbers(rng)
    learned = learn(raw)
    raw[3, 1] = 1e300
    with pytest.raises(DataError, match=r"too large.*row 4, column 2"):
        learned.encode(raw)


def test_a_text_in_a_number_column_and_a_missing_cell_are_named(rng: np.random.Generator) -> None:
    learned = learn(some_table(rng))
    row = {"age": "41", "colour": "red", "story": "bears", "count": 1}
    with pytest.raises(DataError, match=r"'old' is none.*row 2, column age"):
        learned.as_raw([row, {**row, "age": "old"}])
    with pytest.raises(DataError, match="row 1, column count"):
        learned.encode(learned.as_raw([{**row, "count": ""}]))
    with pytest.raises(DataError, match=r"a list is neither.*row 1, column colour"):
        learned.as_raw([{**row, "colour": ["red", "blue"]}])


def given_forms(raw: dict[str, np.ndarray]) -> dict[str, Any]:
    import pandas as pd

    rows = [dict(zip(raw, values, strict=True)) for values in zip(*raw.values(), strict=True)]
    reverse = list(raw)[::-1]
    return {
        "columns": raw,
        "columns as lists": {name: column.tolist() for name, column in raw.items()},
        "DataFrame": pd.DataFrame({name: raw[name].tolist() for name in reverse}),
        "DataFrame with one more column": pd.DataFrame(raw).assign(more=1),
        "dicts": [{name: row[name] for name in reverse} for row in rows],
        "dicts of texts": [{name: str(value) for name, value in row.items()} for row in rows],
        "lists": [list(row.values()) for row in rows],
        "2-D array": np.array([list(row.values()) for row in rows], dtype=object),
    }


def test_rows_of_a_table_come_in_many_forms_and_have_the_same_keys(rng: np.random.Generator) -> None:
    raw = some_table(rng)
    assert isinstance(raw, dict)
    learned = learn(raw)
    for name, form in given_forms(raw).items():
        given = learned.as_raw(form)
        np.testing.assert_array_equal(learned.encode(given), learned.encode(raw), err_msg=name)
        np.testing.assert_array_equal(content_keys(given), content_keys(raw), err_msg=name)
    one = {name: column[0] for name, column in raw.items()}
    np.testing.assert_array_equal(learned.encode(learned.as_raw(one)), learned.encode(raw)[:1])


def test_rows_of_numbers_come_in_many_forms(rng: np.random.Generator) -> None:
    import pandas as pd

    raw = some_numbers(rng)
    assert isinstance(raw, np.ndarray)
    named = learn(raw, columns=list("abcd"))
    frame = pd.DataFrame(raw, columns=list("abcd"))
    forms = [raw, raw.tolist(), raw.astype(str), frame[list("dcba")], frame.to_dict("records")]
    for form in forms:
        np.testing.assert_array_equal(named.encode(named.as_raw(form)), named.encode(raw))
    unnamed = learn(raw)
    assert unnamed.column_names == ("1", "2", "3", "4")
    for form in [frame, [{str(place): value for place, value in enumerate(row, 1)} for row in raw]]:
        np.testing.assert_array_equal(unnamed.encode(unnamed.as_raw(form)), unnamed.encode(raw))


def test_images_come_as_arrays_lists_and_pillow_images(rng: np.random.Generator) -> None:
    from PIL import Image

    raw = some_images(rng)
    assert isinstance(raw, np.ndarray)
    learned = learn(raw)
    for form in [raw, raw.astype(np.int64), list(raw), [Image.fromarray(image) for image in raw]]:
        np.testing.assert_array_equal(learned.as_raw(form), raw)
    grey = raw[..., 0]
    for form in [grey, grey[..., None], list(grey), [Image.fromarray(image) for image in raw[..., [0, 0, 0]]]]:
        np.testing.assert_array_equal(learn(grey).as_raw(form), grey)


def test_texts_come_alone_when_there_is_one_column(rng: np.random.Generator) -> None:
    import pandas as pd

    texts = some_texts(rng, 12)
    learned = learn(texts)
    for form in [texts.tolist(), texts, texts.astype(str), pd.Series(texts)]:
        np.testing.assert_array_equal(learned.encode(learned.as_raw(form)), learned.encode({"text": texts}))
    assert learned.encode(learned.as_raw("quirkily appealing")).shape == (1, *learned.shape)


def test_what_does_not_fit_is_told(rng: np.random.Generator) -> None:
    import pandas as pd

    images, numbers, table = learn(some_images(rng)), learn(some_numbers(rng)), learn(some_table(rng))
    row = {"age": 41, "colour": "red", "story": "bears", "count": 1}
    cases: list[tuple[Any, Any, str]] = [
        (images, np.zeros((2, 7, 5, 3), np.uint8), "6 x 5 x 3, not 2 x 7 x 5 x 3"),
        (images, [np.zeros((6, 5, 3), np.uint8), np.zeros((5, 6, 3), np.uint8)], "image 2"),
        (images, np.zeros((6, 5, 3), np.uint8), "one image as a list of one"),
        (images, np.zeros((2, 6, 5, 3)), "these are float64"),
        (images, np.full((2, 6, 5, 3), 256), "0 to 255"),
        (images, ["a", "b"], "image 1"),
        (images, "a", "not str"),
        (numbers, np.zeros((3, 5)), "rows of 4 columns, not 3 x 5"),
        (numbers, np.zeros(4), "rows of 4 columns"),
        (numbers, [[1, 2, 3, 4], [1, 2, 3]], "here are 3 values.*row 2"),
        (numbers, [[1, 2, 3, "x"]], "'x' is none.*row 1, column 4"),
        (numbers, [1, 2, 3, 4], "no list of values.*row 1"),
        (numbers, "abcd", "not str"),
        (
            table,
            pd.DataFrame({"age": [1], "color": ["red"], "story": ["x"], "count": [1]}),
            "'colour'.*Did you mean 'color'",
        ),
        (table, [row, {"age": 1}], "'colour' is missing.*row 2"),
        (table, ["a text"], "no list of values"),
        (table, np.zeros((3, 5)), "rows of 4 columns"),
    ]
    for learned, rows, message in cases:
        with pytest.raises(DataError, match=message):
            learned.as_raw(rows)


def test_raw_rows_of_another_form_cannot_be_encoded(rng: np.random.Generator) -> None:
    images, numbers, table = some_images(rng), some_numbers(rng), some_table(rng)
    for known, others in [(images, (numbers, table)), (numbers, (images, table)), (table, (images, numbers))]:
        for other in others:
            with pytest.raises(DataError, match="the model takes"):
                learn(known).encode(other)
    assert isinstance(table, dict)
    with pytest.raises(DataError, match="'story' is missing"):
        learn(table).encode({name: column for name, column in table.items() if name != "story"})


def test_arrays_that_are_neither_numbers_nor_images_are_refused(rng: np.random.Generator) -> None:
    cases = [
        (np.zeros(4), "neither a table of numbers nor images"),
        (np.zeros((2, 3), complex), "neither"),
        (np.zeros((2, 3, 32, 32), np.uint8), "C last"),
        (np.zeros((2, 3, 4), np.float32), "float32"),
        ({"when": np.array(["2020-01-01"], "datetime64[D]")}, "a date is neither"),
    ]
    for raw, message in cases:
        with pytest.raises(DataError, match=message):
            tidy(raw)
    with pytest.raises(DataError, match="no rows to learn from"):
        learn(np.zeros((0, 3)))


def test_a_damaged_description_is_a_model_error(rng: np.random.Generator) -> None:
    tree = learn(some_images(rng)).to_json()
    del tree["mean_C"]
    for damaged in (tree, {"kind": "nothing"}, []):
        with pytest.raises(ModelError, match=r"inputs\.json"):
            from_json(damaged)
    assert isinstance(from_json(learn(some_images(rng)).to_json()), Images)
