"""The schemas that `docs/schemas` publishes."""

import json

import jsonschema
import pytest
from helpers.small import ROOT, make_card, steel_image

from docs.make_schemas import published_schemas
from steel_core.inference.predictor import Predictor
from steel_core.models.checkpoint import ASSETS, CARD

SCHEMAS = ROOT / "docs" / "schemas"


def test_the_published_schemas_are_those_of_the_code():
    stored = {file.name: file.read_text(encoding="utf-8") for file in SCHEMAS.glob("*.json")}
    assert stored == published_schemas(), "make them anew with: python -m docs.make_schemas"


def check(content, name):
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(json.loads(json.dumps(content)), schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("folder", sorted(ASSETS.glob(f"models/*/{CARD}")), ids=lambda card: card.parent.name)
def test_shipped_cards_are_what_the_schema_says(folder):
    check(json.loads(folder.read_text(encoding="utf-8")), "card")


def test_a_card_that_leaves_out_what_it_may_is_what_the_schema_says():
    check(make_card().to_json(), "card")


def test_predictions_and_explanations_are_what_the_schemas_say(checkpoint_folder):
    predictor, image = Predictor.load(checkpoint_folder, "cpu"), steel_image()
    check(predictor.predict([image])[0].to_json(), "prediction")
    check(predictor.explain(image, "grad-cam").provenance(), "explanation")
