"""Cards: what is written is what is read, and a field that cannot be is refused with a sentence."""

import base64
import json
import tempfile
from pathlib import Path

import pytest
from helpers.small import make_card
from hypothesis import given, settings
from hypothesis import strategies as st

from steel_core.errors import CheckpointError
from steel_core.models.card import Card
from steel_core.models.checkpoint import ASSETS, CARD, read_card

texts = st.text(max_size=12)
shares = st.floats(0, 1)
finite = st.floats(-1e30, 1e30)
opens = st.dictionaries(
    texts, st.none() | st.booleans() | st.integers() | finite | texts | st.lists(finite), max_size=3
)
counts = st.integers(0, 10**9)
codes = st.binary(min_size=32, max_size=32).map(lambda code: base64.b64encode(code).decode()) | st.just("")
estimates = st.fixed_dictionaries(dict.fromkeys(("value", "low", "high", "lift"), st.none() | finite) | {"n": counts})
tables = st.fixed_dictionaries(
    {
        "data": texts,
        "evidence": texts,
        "images": counts,
        "methods": st.dictionaries(texts, st.dictionaries(texts, estimates, max_size=2), max_size=2),
    },
    optional={
        "quantiles": st.dictionaries(
            texts, st.dictionaries(texts, st.lists(finite, max_size=3), max_size=2), max_size=2
        ),
        "agreement": st.lists(opens, max_size=2),
        "seconds": st.dictionaries(texts, st.floats(0, 1e6), max_size=2),
    },
)
rules = st.fixed_dictionaries({"mean": finite, "std": st.floats(0, 1e30)}, optional={"k": st.floats(-100, 100)})
rates = st.fixed_dictionaries({"unfamiliar": shares, "interval": st.tuples(shares, shares), "n": counts})
gates = st.fixed_dictionaries(
    {"file": st.just("familiar-0.safetensors"), "sha256": texts},
    optional={"method": texts, "rates": st.dictionaries(texts, rates, max_size=2)},
)
cures = st.fixed_dictionaries(
    {}, optional={"of": texts, "config": opens, "audit": st.just({"after": {"verdict": "x"}})}
)
amendments = st.fixed_dictionaries({"at": texts, "who": texts, "reason": texts, "old": opens, "new": opens})
cards = st.fixed_dictionaries(
    {
        "name": texts,
        "title": texts,
        "backbone": texts,
        "head": st.sampled_from(["softmax", "sigmoid"]),
        "classes": st.lists(texts, min_size=1, max_size=4, unique=True),
        "input_size": st.tuples(st.integers(1, 8192), st.integers(1, 8192)),
        "mean": shares,
        "std": st.floats(1e-9, 1),
        "weights_sha256": st.text(min_size=1, max_size=5),
        "format": st.just(1),
    },
    optional={
        "temperature": st.floats(1e-3, 1e3),
        "thresholds": st.dictionaries(texts, shares, max_size=3),
        "data": opens,
        "split": st.fixed_dictionaries(
            {},
            optional={
                "seed": counts,
                "files": st.dictionaries(texts, st.lists(texts, max_size=2), max_size=2),
                "contents": st.dictionaries(texts, st.lists(codes, max_size=2), max_size=2),
            },
        ),
        "metrics": st.dictionaries(texts, opens, max_size=2),
        "training": st.fixed_dictionaries({}, optional={"settings": opens, "best_epoch": counts, "cure": cures}),
        "map_scale": st.dictionaries(texts, st.floats(1e-30, 1e30), max_size=2),
        "regions": st.dictionaries(texts, rules, max_size=2),
        "quality": st.dictionaries(texts, tables, max_size=2),
        "familiarity": gates | st.just({}),
        "notes": st.lists(texts, max_size=2),
        "history": st.lists(amendments, max_size=2),
        "multi_label": st.booleans(),
    },
)


def read(content):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "mine"
        folder.mkdir()
        (folder / CARD).write_text(json.dumps(content), encoding="utf-8")
        return read_card(folder)


@settings(max_examples=60, deadline=None)
@given(cards)
def test_any_sound_card_comes_back_as_it_was_written(content):
    card = read(content)
    written = json.loads(json.dumps(card.to_json()))
    assert read(written) == card
    for name in {"split", "training"} & content.keys():
        assert written[name] == json.loads(json.dumps(content[name])), "nothing is added to what was left out"


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(Card.model_fields)),
    st.sampled_from([None, True, "junk", -1, 5.5, 10**400, float("nan"), [], [1], [[]], {"a": 1}, {"a": {"b": []}}]),
)
def test_a_field_replaced_by_junk_is_refused_with_a_sentence_or_sound(name, junk):
    sound = make_card().to_json() | {"weights_sha256": "0"}
    try:
        card = read(sound | {name: junk})
    except CheckpointError as error:
        assert str(error).startswith("checkpoint mine: in its card, ")
        assert "\n" not in str(error) and tempfile.gettempdir() not in str(error)
    else:
        written = json.loads(json.dumps(card.to_json()))
        assert written[name] == ({} if junk is None else junk)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"classes": ["a", "a"]}, "classes: expected different names, got a, a"),
        ({"mean": float("nan")}, "mean: expected a finite number"),
        ({"mean": "0.5"}, "mean: expected a valid number"),
        ({"multi_label": 1}, "multi label: expected a valid boolean"),
        ({"quality": {"d": {"data": "d", "evidence": "", "images": -1, "methods": {}}}}, "quality.d.images: "),
        ({"familiarity": {"file": "../familiar", "sha256": ""}}, "familiarity.file: "),
        ({"training": {"cure": {"of": 5}}}, "training.cure.of: expected a valid string, got 5"),
        ({"weights_sha256": ""}, "expected the hash of the weights"),
    ],
)
def test_the_sentence_names_the_field_and_what_was_expected(change, sentence):
    content = json.loads((ASSETS / "models" / "strip-mill" / CARD).read_text(encoding="utf-8"))
    with pytest.raises(CheckpointError) as caught:
        read(content | change)
    assert sentence in str(caught.value)


def test_what_people_add_to_a_card_is_kept():
    added = {"plant": "Linz", "self": 1, "history": [{"at": "2026-12-01", "note": "x"}], "split": {"by": "coil"}}
    card = read(make_card().to_json() | {"weights_sha256": "0"} | added)
    written = card.replace(title="other").to_json()
    assert written["plant"] == "Linz"
    assert written["self"] == 1
    assert written["split"]["by"] == "coil"
    assert written["history"][0]["note"] == "x"


def test_a_card_without_a_format_is_refused():
    content = make_card().to_json() | {"weights_sha256": "0"}
    del content["format"]
    with pytest.raises(CheckpointError, match="format: expected 1, got none"):
        read(content)


@pytest.mark.parametrize("name", ["strip-mill", "strip-mill-cured", "neu-six-class"])
def test_a_shipped_card_is_written_as_it_was_read(name):
    content = json.loads((ASSETS / "models" / name / CARD).read_text(encoding="utf-8"))
    written = json.loads(json.dumps(read(content).to_json()))
    assert {field: written[field] for field in content} == content
