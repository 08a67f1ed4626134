"""What one photo is to be translated to, and how: the parameters of `POST /translate`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

from pydantic import Field

from ..errors import CardError
from ..storage.card import Section, suggest, validate

LARGEST_SIZE = 2048  # px


class TranslateRequest(Section):
    """The parameters of a translation; unknown keys and values out of range are errors."""

    weights: str | None = Field(
        None, description="name of the weights, as GET /weights lists them; else the first that know `to`"
    )
    to: str | None = Field(None, description="domain or label to translate to; several joined by +")
    source: str | None = Field(None, description="what the face is, for weights that must know: Young+Male, or none")
    size: int | None = Field(None, ge=16, le=LARGEST_SIZE, description="shorter edge of a face, px; else the model's")
    controls: dict[str, Any] = Field(default_factory=dict, description="what the weights let people set, by name")
    mask: bool = Field(False, description="show where the face is changed (white: completely) instead of the face")
    align: bool = Field(True, description="find the face and cut it out; false for an image that is a face already")
    rotation: Literal["upright", "condition"] | None = Field(
        None,
        description="translate a tilted face whole, not cut out: turned upright and back, or by weights that are told "
        "its angle",
    )
    paste: bool = Field(False, description="put the faces back into the photo")
    faces: Literal["largest", "all"] = Field("largest", description="which faces of the photo are translated")
    format: Literal["png", "jpg", "webp"] = Field("png", description="file type of the images in the answer")
    answer: Literal["image", "json"] = Field(
        "image", description="an image, or JSON with a box, landmarks and an image (base64) for every face"
    )


OWN = tuple(name for name in TranslateRequest.model_fields if name != "controls")
"""The parameters that do not depend on the weights."""


def parse(pairs: Sequence[tuple[str, str]], controls: Collection[str] = ()) -> TranslateRequest:
    """Return the request that the pairs of a query string make.

    `controls` are the names of what the weights let people set; each is a parameter of its own. Raises CardError for
    what is wrong with the pairs; what a control takes is checked when it is used.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        raise CardError("a parameter is given twice", "give each parameter once")
    for name in values:
        if name not in OWN and name not in controls:
            known = suggest(name, [*OWN, *controls])
            raise CardError(f"there is no parameter {name!r}{known}", "the page at / lists the parameters")
    given = {name: values.pop(name) for name in controls if name in values and name not in OWN}
    try:
        request = validate(TranslateRequest, {**values, "controls": given}, "the query")
    except CardError as error:
        raise CardError(error.message, "the page at / lists the parameters") from error
    if request.paste and (request.mask or not request.align):
        raise CardError("paste puts a face back where it was found", "leave out mask and align")
    if request.rotation and (request.paste or request.faces == "all"):
        raise CardError("rotation is for one face that stays as it is", "leave out paste and faces, or rotation")
    if request.faces == "all" and not request.align:
        raise CardError("faces=all needs to find the faces", "leave out align")
    if request.faces == "all" and not request.paste and request.answer == "image":
        raise CardError("faces=all without paste gives several images", "add answer=json, or paste=true")
    return request
