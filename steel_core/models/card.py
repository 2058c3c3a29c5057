"""The card of a checkpoint: what a person and the program must know about it, as it stands in `card.json`."""

from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_serializer, field_validator

from steel_core.data.quality.content import ALIKE, count_differences, encode_content, stack_codes
from steel_core.data.transforms import Preprocessing
from steel_core.errors import CheckpointError, SteelError, UsageError
from steel_core.records import Count, Flag, Number, PartialRecord, Record, Share
from steel_core.types import CLEAR, SteelImage, UInt8Array

Head = Literal["softmax", "sigmoid"]
Pixels = Annotated[int, Field(strict=True, gt=0, le=8192)]
Positive = Annotated[Number, Field(ge=1e-30, le=1e30)]
Finite = Annotated[Number, Field(ge=-1e30, le=1e30)]
ContentCode = Annotated[str, Field(pattern=r"^([A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=)?$")]


class CardRecord(Record):
    """A part of a card; what is wrong with it is wrong with the checkpoint."""

    model_config = ConfigDict(extra="allow")  # people and later versions may add to a card; what they add is kept

    error: ClassVar[type[SteelError]] = CheckpointError


class RegionRule(CardRecord):
    """How the maps of one method of one checkpoint become regions."""

    mean: Finite = Field(description="Of the blurred evidence over all pixels of the images it was chosen on.")
    std: Annotated[Number, Field(ge=0, le=1e30)] = Field(description="Its standard deviation.")
    k: Annotated[Number, Field(ge=-100, le=100)] = Field(
        1.0, description="The threshold lies k standard deviations above the mean."
    )
    blur: Annotated[Number, Field(ge=0, le=1000)] = Field(
        4.0, description="Standard deviation of the blur, in pixels of the map; comes on top of the method's own."
    )
    smallest: Share = Field(0.004, description="A connected piece with a smaller share of the map is dropped.")
    chosen_on: str = Field("", description="On what blur, k and smallest piece were chosen; empty for the defaults.")

    @property
    def threshold(self) -> float:
        """Evidence above it belongs to the region; never negative, as that would speak against the class."""
        return max(self.mean + self.k * self.std, 0.0)

    @property
    def words(self) -> str:
        """The rule for people."""
        chosen = f"chosen on {self.chosen_on}" if self.chosen_on else "not chosen on any image with a mask"
        return f"blur {self.blur:g}, threshold mean + {self.k:g} std, pieces of at least {self.smallest:.1%}; {chosen}"


class QualityEstimate(CardRecord):
    """One metric of the maps of one method: the mean over images with its 95 % interval."""

    value: Finite | None
    low: Finite | None
    high: Finite | None
    lift: Finite | None = Field(None, description="Value over what a map that knows nothing would reach.")
    n: Count = Field(description="Images counted.")


class QualityTable(CardRecord):
    """How good the explanations are on one data set."""

    published: ClassVar[str] = "explanation-quality"

    data: str = Field(description="Name of the data set.")
    evidence: str = Field(description="masks, boxes, masks and boxes, or empty where nothing is on file.")
    date: str = Field("", description="UTC time, ISO 8601.")
    code_version: str = ""
    images: Count = Field(description="Images counted.")
    methods: dict[str, dict[str, QualityEstimate]] = Field(description="Estimates by method and metric.")
    quantiles: dict[str, dict[str, tuple[Finite, ...]]] = Field(
        {}, description="By method and metric: quantiles of the values of the images at equal steps."
    )
    agreement: tuple[dict[str, Any], ...] = Field((), description="One row for each two methods.")
    seconds: dict[str, Number] = Field({}, description="Time for one map of each method.")


class UnfamiliarRate(CardRecord):
    """The share of a set of images that the gate calls unfamiliar."""

    unfamiliar: Share | None
    interval: tuple[Share, Share]
    n: Count
    effective: Number | None = Field(None, description="Number of independent images that n are worth.")


class GateFacts(PartialRecord, CardRecord):
    """The gate for unfamiliar images: its file, and its measured rates."""

    file: str = Field(pattern=r"^[A-Za-z0-9][^/\\:]*$", description="Arrays of the gate, beside the weights.")
    sha256: str
    method: str = ""
    rates: dict[str, UnfamiliarRate] = Field({}, description="By the name of the set of images.")


class Split(PartialRecord, CardRecord):
    """How the images were divided."""

    seed: int = 0
    counts: dict[str, Count] = Field({}, description="Number of images of each part.")
    files: dict[str, tuple[str, ...]] = Field({}, description="First 16 digits of the hash of each part's files.")
    contents: dict[str, tuple[ContentCode, ...]] = Field(
        {}, description="Codes of what the images learnt from show (train, val), by which altered copies are known."
    )


class CureAudit(PartialRecord, CardRecord):
    """The audit that ran before and after a cure."""

    settings: dict[str, Any] = Field({}, description="Of the white-stain audit.")
    data_hash: str = ""
    seed: int = 0
    before: dict[str, Any] = Field({}, description="Verdict and estimates of the checkpoint it was made of.")
    after: dict[str, Any] = Field({}, description="Verdict and estimates of the cured one.")


class CureSummary(PartialRecord, CardRecord):
    """How a checkpoint was cured of a shortcut, and what that changed."""

    of: str = Field("", description="Name of the checkpoint it was made of.")
    of_hash: str = ""
    config: dict[str, Any] = Field({}, description="Settings of the cure.")
    failure: str = Field("", description="Why it is no cure, in a sentence; empty where it is one.")
    best_epoch: Count = 0
    history: tuple[dict[str, Any], ...] = ()
    audit: CureAudit = CureAudit()


class TrainingFacts(PartialRecord, CardRecord):
    """Settings and course of the training."""

    settings: dict[str, Any] = Field({}, description="Settings of the training.")
    init_sha256: str = Field("", description="Hash of the file of weights it started from.")
    learning_rate_search: tuple[Any, ...] = Field((), description="For each search pairs of rate and smoothed loss.")
    best_epoch: Count = 0
    clues: tuple[dict[str, Any], ...] = Field((), description="What beside the defect predicts the label.")
    history: tuple[dict[str, Any], ...] = Field((), description="One row for each epoch.")
    torch: str = ""
    device: str = ""
    cure: CureSummary | None = None


class Amendment(CardRecord):
    """What a person changed in a card since the training."""

    at: str = Field(description="UTC time, ISO 8601.")
    who: str = ""
    reason: str = ""
    old: dict[str, Any] = Field(default_factory=dict)
    new: dict[str, Any] = Field(default_factory=dict)


def _allow_no_gate(schema: dict[str, Any]) -> None:
    schema["anyOf"].append({"type": "object", "maxProperties": 0})


class Card(CardRecord):
    """What a person and the program must know about a checkpoint."""

    published: ClassVar[str] = "card"

    name: str = Field(description="Short name, also that of its folder.")
    title: str = Field(description="Name for people.")
    backbone: str = Field(description="Name in the registry of backbones.")
    head: Head
    classes: tuple[str, ...] = Field(min_length=1, description="Names in the order of the logits, all different.")
    input_size: tuple[Pixels, Pixels] = Field(description="Height and width in pixels.")
    mean: Share = Field(description="Mean grey of the training images.")
    std: Annotated[Number, Field(ge=1e-9, le=1)] = Field(description="Standard deviation of their grey.")
    temperature: Annotated[Number, Field(ge=1e-3, le=1e3)] = Field(
        1.0, description="Logits are divided by it before the head."
    )
    thresholds: dict[str, Share] = Field(
        {},
        description="Probability of each class below which its prediction is referred to a person; of a multi-label "
        "checkpoint that of clear as well.",
    )
    data: dict[str, Any] = Field(
        {}, description="Name, title, licence, citation and hash of the data set, number of images and groups."
    )
    split: Split = Split()
    metrics: dict[str, dict[str, Any]] = Field({}, description="Estimates with intervals, by the images they rest on.")
    training: TrainingFacts = TrainingFacts()
    map_scale: dict[str, Positive] = Field(
        {}, description="For each explainer, the evidence that gets the full colour; fixed on the validation split."
    )
    regions: dict[str, RegionRule] = Field({}, description="For each explainer, the rule that makes regions of maps.")
    quality: dict[str, QualityTable] = Field({}, description="For each data set, how good the explanations are on it.")
    familiarity: GateFacts | None = Field(
        None, description="The gate for unfamiliar images, {} where there is none.", json_schema_extra=_allow_no_gate
    )
    background: str = Field("", description="What the SHAP background is.")
    notes: tuple[str, ...] = Field((), description="What a user should know, one sentence each.")
    history: tuple[Amendment, ...] = Field((), description="What people changed since the training.")
    code_version: str = Field("", description="Version of steel_core that wrote it.")
    created: str = Field("", description="UTC time, ISO 8601.")
    weights_sha256: str = Field("", description="Hash of the weights' file.")
    format: Literal[1] = Field(1, description="Version of this layout.")
    multi_label: Flag = Field(False, description="Whether several classes can be in one image.")

    @field_validator("classes")
    @classmethod
    def _expect_different(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(classes)) < len(classes):
            raise ValueError(f"classes: expected different names, got {', '.join(classes)}")
        return classes

    @field_validator("familiarity", mode="before")
    @classmethod
    def _read_no_gate(cls, facts: Any) -> Any:
        return None if facts == {} else facts

    @field_serializer("familiarity")
    def _write_no_gate(self, facts: GateFacts | None) -> dict[str, Any]:
        return facts.to_json() if facts else {}

    @property
    def preprocessing(self) -> Preprocessing:
        """How images must be prepared."""
        return Preprocessing(self.input_size, self.mean, self.std)

    def threshold(self, label: str) -> float:
        """Probability of `label` below which it is referred; unfitted one half, and 1 for multi-label "clear"."""
        return self.thresholds.get(label, 1.0 if self.multi_label and label == CLEAR else 0.5)

    @property
    def clears(self) -> bool:
        """Whether it can call a sheet clear."""
        return self.threshold(CLEAR) < 1.0 if self.multi_label else CLEAR in self.classes

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user must know before trusting a verdict: what the classes imply, then the notes."""
        if self.clears:
            return self.notes
        if self.multi_label:
            return ("It has learnt from no clear sheet: it names defects and cannot clear a sheet.", *self.notes)
        return ("It has no class “clear”: it names the likeliest defect and cannot clear a sheet.", *self.notes)

    def expect_one_label(self, work: str) -> None:
        """Refuse a multi-label checkpoint for `work` that asks whether the one class of an image turns.

        Raises:
            UsageError: several classes can be in one image.
        """
        if self.multi_label:
            raise UsageError(
                f"{work}: expected a checkpoint that names one class an image; {self.name} names several. One that was "
                "trained with `--binary` on the same images can be asked"
            )

    def part_of(self, image: SteelImage) -> str:
        """The part of the split ("train", "val", "test") that held this image or a copy of it, or "".

        The hash of the file decides, else what the image shows: copies of images learnt from that were re-encoded,
        resized, relit or stained are known (`steel_core.data.quality.content`), where the card keeps their codes.
        """
        known = self.part_of_file(image.sha256)
        return known or (self.part_of_content(encode_content(image.grey())) if self.split.contents else "")

    def part_of_file(self, image_sha256: str) -> str:
        """The part of the split that held a file with this hash, or ""."""
        return self._parts.get(image_sha256[:16], "")

    def part_of_content(self, code: str) -> str:
        """The part of the split that held an image with nearly this code, or ""."""
        parts, codes = self._contents
        if not code or not len(codes):
            return ""
        differences = count_differences(code, codes)
        nearest = int(differences.argmin())
        return parts[nearest] if differences[nearest] <= ALIKE else ""

    @cached_property
    def _parts(self) -> dict[str, str]:
        return {short: part for part, hashes in self.split.files.items() for short in hashes}

    @cached_property
    def _contents(self) -> tuple[list[str], UInt8Array]:
        kept = [(part, code) for part, codes in self.split.contents.items() for code in codes if code]
        return [part for part, _ in kept], stack_codes([code for _, code in kept])
