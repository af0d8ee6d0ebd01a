"""What the header of a trace holds, and how much of it is believed."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import xxhash
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from harness.case import HarnessError

SCHEMA = 2
HEADER = "header.json"
HEADER_BYTES = 2**26
UNSIGNED = "0" * 32

FILE = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}\.safetensors$"
"""No dot, slash or backslash before the ending: a name cannot leave the folder."""

Count = Annotated[int, Field(ge=0, lt=2**53)]
Checksum = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
"""XXH3-128: it shows damage, not malice, and costs a tenth of what SHA-256 does."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Shard(_Part):
    """A file of tensors, of so many steps from `first` on."""

    file: Annotated[str, Field(pattern=FILE)]
    bytes: Count
    checksum: Checksum
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
    checksum: Checksum
    name: str
    framework: str
    case: dict[str, JsonValue] | None = None
    resolved: dict[str, JsonValue] | None = None
    model: Model | None = None
    missing: dict[str, str] = {}
    data: Checksum
    seed: Count | None
    steps: Annotated[int, Field(ge=1, lt=2**53)]
    thinning: Thinning = Thinning()
    environment: dict[str, JsonValue]
    created: str
    shards: Annotated[tuple[Shard, ...], Field(strict=False)]


def written(header: Header) -> bytes:
    """The header's file: JSON that holds the checksum of itself, taken with zeros in the place of its digits."""
    fields = header.model_copy(update={"checksum": UNSIGNED}).model_dump(mode="json")
    data = (json.dumps(fields, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()
    return data.replace(UNSIGNED.encode(), xxhash.xxh3_128_hexdigest(data).encode(), 1)


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
            f"{where} has schema version {version!r}, this gradparity reads {SCHEMA}; record it again, or read it with "
            "the gradparity that wrote it"
        )
    try:
        header = Header.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise HarnessError(f"{where} is not valid: {place}: {_one_line(first['msg'])}; record it again") from None
    digits = header.checksum.encode()
    unsigned = data.replace(digits, UNSIGNED.encode(), 1)
    if digits == UNSIGNED.encode() or xxhash.xxh3_128_hexdigest(unsigned) != header.checksum:
        raise HarnessError(f"{where} is damaged: its checksum does not fit; record it again")
    return header


def _one_line(words: object) -> str:
    return " ".join(str(words).split())[:200]
