"""Settings and records: a wrong value is a sentence that names its place."""

import json
from typing import Any

import pytest
from pydantic import Field

from steel_core.errors import UsageError
from steel_core.records import Count, Flag, Number, PartialRecord, Record, Share


class Part(PartialRecord):
    share: Share = 0.5
    flag: Flag = False


class Whole(Record):
    number: Number
    count: Count = 0
    part: Part = Part()
    parts: dict[str, Part] = Field({})
    rest: dict[str, Any] = Field({})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "number: expected a value, got none"),
        ({"number": "1"}, "number: expected a valid number, got '1'"),
        ({"number": True}, "number: expected a valid number, got True"),
        ({"number": float("inf")}, "number: expected a finite number, got inf"),
        ({"number": 1, "count": 1.5}, "count: expected a valid integer, got 1.5"),
        ({"number": 1, "part": {"share": 2}}, "part.share: expected less than or equal to 1, got 2"),
        ({"number": 1, "parts": {"a": {"flag": 1}}}, "parts.a.flag: expected a valid boolean, got 1"),
        ({"number": 1, "others": 2}, "others: expected no such setting, got 2"),
        ({"number": "1", "others": 2}, "number: expected a valid number, got '1' (and 1 more)"),
        ([1], "expected an object with the fields of Whole, got list"),
    ],
)
def test_the_first_wrong_value_is_named_with_its_place(content, sentence):
    with pytest.raises(UsageError) as caught:
        Whole.from_json(content)
    assert str(caught.value) == sentence


def test_what_is_replaced_is_validated_and_the_rest_stays():
    whole = Whole(number=1.5, part=Part(share=0.25))
    assert whole.replace(count=3) == Whole(number=1.5, count=3, part=Part(share=0.25))
    with pytest.raises(UsageError, match="count"):
        whole.replace(count=-1)


def test_json_comes_back_and_a_partial_record_writes_only_what_was_set():
    whole = Whole(number=1, part=Part(share=0.25).replace(share=0.75), rest={"nothing": float("nan")})
    written = json.loads(json.dumps(whole.to_json(), allow_nan=False))
    assert written == {"number": 1.0, "count": 0, "part": {"share": 0.75}, "parts": {}, "rest": {"nothing": None}}
    assert Whole.from_json(written).part == whole.part
