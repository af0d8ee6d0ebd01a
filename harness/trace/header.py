"""What the header of a trace holds, and how much of it is believed."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from harness.case import HarnessError

SCHEMA = 1
HEADER = "header.json"
HEADER_BYTES = 2**26
UNSIGNED = "0" * 64

FILE = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}\.safetensors$"
"""No dot, slash or backslash before the ending: a name cannot leave the folder."""

Count = Annotated[int, Field(ge=0, lt=2**53)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Shard(_Part):
    """A file of tensors, of so many steps from `first` on."""

    file: Annotated[str, Field(pattern=FILE)]
    bytes: Count
    sha256: Sha256
    first: Count
    steps: Annotated[int, Field(ge=1, lt=2**53)]


class Thinning(_Part):
    """What is kept of a run: every so many-th step, quantities whose `kind:name` one of the patterns fits, and in full
    only tensors of at most `above` numbers (of larger ones a fingerprint)."""

    every: Annotated[int, Field(ge=1)] = 1
    only: tuple[str, ...] = Field(default=(), strict=False)
    above: Annotated[int, Field(ge=0)] | None = None

    @property
    def thins(self) -> bool:
        return self != Thinning()


class Parameter(_Part):
    """As `harness.recipe.Parameter`."""

    name: str
    shape: Annotated[tuple[Count, ...], Field(strict=False)]
    layer: str
    op: str
    role: str
    framework: str
    trainable: bool
    buffer: bool
    dtype: str


class Model(_Part):
    """A user's model. outputs: names of activations. order: `kind/name` of all that a step shows, in the order of the
    computation. batch_size, inference: as it was fed."""

    parameters: Annotated[tuple[Parameter, ...], Field(strict=False)]
    outputs: Annotated[tuple[str, ...], Field(strict=False)]
    order: Annotated[tuple[str, ...], Field(strict=False)]
    batch_size: Count | None
    inference: bool


class Header(_Part):
    """The header. case: as given, resolved: with the framework's conventions; model: instead of a case.

    missing: quantities that the side cannot show, each with the reason. data: checksum of what was trained on.
    """

    format: Literal["gradparity-trace"]
    schema_version: int
    sha256: Sha256
    name: str
    framework: str
    case: dict[str, JsonValue] | None = None
    resolved: dict[str, JsonValue] | None = None
    model: Model | None = None
    missing: dict[str, str] = {}
    data: Sha256
    seed: Count | None
    steps: Annotated[int, Field(ge=1, lt=2**53)]
    thinning: Thinning = Thinning()
    environment: dict[str, JsonValue]
    created: str
    shards: Annotated[tuple[Shard, ...], Field(strict=False)]


def written(header: Header) -> bytes:
    """The header's file: JSON that holds the SHA-256 of itself, taken with zeros in the place of its digits."""
    fields = header.model_copy(update={"sha256": UNSIGNED}).model_dump(mode="json")
    data = (json.dumps(fields, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()
    return data.replace(UNSIGNED.encode(), hashlib.sha256(data).hexdigest().encode(), 1)


def parsed(data: bytes, where: str) -> Header:
    """A header's file, checked. Raises HarnessError in one line, naming where."""
    try:
        fields: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{where} is damaged ({_one_line(error)}); record it again") from None
    if not isinstance(fields, dict) or fields.get("format") != "gradparity-trace":
        raise HarnessError(f'{where} is no header of a trace: "format" must be "gradparity-trace"')
    version = fields.get("schema_version")
    if version != SCHEMA:
        raise HarnessError(
            f"{where} has schema version {version!r}, this gradparity reads {SCHEMA}; use one that writes the same"
        )
    try:
        header = Header.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise HarnessError(f"{where} is not valid: {place}: {_one_line(first['msg'])}; record it again") from None
    digits = header.sha256.encode()
    if (
        digits == UNSIGNED.encode()
        or hashlib.sha256(data.replace(digits, UNSIGNED.encode(), 1)).hexdigest() != header.sha256
    ):
        raise HarnessError(f"{where} is damaged: its checksum does not fit; record it again")
    return header


def _one_line(words: object) -> str:
    return " ".join(str(words).split())[:200]
