"""The service's interface as an OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import __version__
from ..recipe_api.controls import Control
from .request import OWN, TranslateRequest

ERRORS = {
    "400": "a parameter is wrong, or the weights cannot do this",
    "408": "the image did not arrive in time",
    "413": "the body is too long",
    "415": "the body is not an image",
    "422": "the image cannot be read, has too many pixels, or shows no face",
    "429": "the queue is full; Retry-After says when to try again",
    "503": "no answer in time, or too little memory",
}


def parameters(controls: Mapping[str, Sequence[Control]]) -> list[dict[str, Any]]:
    """Return the query parameters of a translation by weights with these controls."""
    found = []
    for name in OWN:
        schema = TranslateRequest.model_json_schema()["properties"][name]
        kinds = [kind for kind in schema.pop("anyOf", []) if kind.get("type") != "null"]
        described = schema.pop("description")
        schema.pop("title", None)
        schema = {**(kinds[0] if kinds else {}), **schema}
        if schema.get("default", 0) is None:
            del schema["default"]
        found.append({"name": name, "in": "query", "description": described, "schema": schema})
    for name, declared in controls.items():
        if name not in OWN:
            described = "; or: ".join(dict.fromkeys(control.help for control in declared))
            found.append({"name": name, "in": "query", "description": described, "schema": _taken(declared)})
    return found


def _taken(kinds: Sequence[Control]) -> dict[str, Any]:
    """Return the schema of a control that weights may give other limits each: whatever one of them takes."""
    numbers = [control for control in kinds if not control.choices]
    if not numbers:
        return {"type": "string", "enum": list(dict.fromkeys(choice for one in kinds for choice in one.choices))}
    if len(numbers) < len(kinds):
        return {"type": "string"}
    whole = all(isinstance(control.default, int) for control in kinds)
    limits = {"minimum": min(one.low for one in kinds), "maximum": max(one.high for one in kinds)}
    return {"type": "integer" if whole else "number", **limits}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


TEXT, WHOLE, NUMBER, YES_OR_NO = ({"type": name} for name in ("string", "integer", "number", "boolean"))
NO_FACE = {"description": "null for an image that is a face already"}
SCHEMAS = {
    "Error": _object(error=TEXT, hint={"type": ["string", "null"]}),
    "Health": _object(status=TEXT, version=TEXT, working=WHOLE, waiting=WHOLE, seats=WHOLE, seconds=NUMBER),
    "Weights": _object(
        weights=_list(
            _object(
                name=TEXT,
                recipe=TEXT,
                to=_list(TEXT),
                size=WHOLE,
                several={**YES_OR_NO, "description": "whether `to` takes several labels joined by +"},
                source={**YES_OR_NO, "description": "whether `source` must be given"},
                controls=_list(_object(name=TEXT, default={}, help=TEXT, low=NUMBER, high=NUMBER, choices=_list(TEXT))),
                mask=YES_OR_NO,
                rotations={**_list(TEXT), "description": "what `rotation` may be"},
            )
        )
    ),
    "Translation": _object(
        weights=TEXT,
        to=TEXT,
        photo=_object(width=WHOLE, height=WHOLE),
        type={**TEXT, "description": "media type of the images"},
        faces=_list(
            _object(
                box={"type": ["array", "null"], "items": NUMBER, "description": "x0, y0, x1, y1 in px of the photo"},
                landmarks={"type": ["array", "null"], "items": _list(NUMBER), **NO_FACE},
                score={"type": ["number", "null"], **NO_FACE},
                image={**TEXT, "description": "the translated face, base64"},
            )
        ),
        image={"type": ["string", "null"], "description": "with paste: the whole photo, base64"},
    ),
}


def _answer(description: str, schema: str) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {"description": description, "content": {"application/json": {"schema": reference}}}


def document(
    weights: list[str], controls: Mapping[str, Sequence[Control]], most_bytes: int, most_pixels: int
) -> dict[str, Any]:
    """Return the OpenAPI document of a service with these weights, their controls and its limits."""
    image = {"schema": {"type": "string", "format": "binary"}}
    given = parameters(controls)
    next(one for one in given if one["name"] == "weights")["schema"] = {"type": "string", "enum": weights}
    done = _answer("the translated image, or JSON with answer=json", "Translation")
    done["content"] |= dict.fromkeys(("image/png", "image/jpeg", "image/webp"), image)
    done["headers"] = {"X-Faces": {"description": "number of faces translated", "schema": WHOLE}}
    body = f"an image file of at most {most_bytes:,} bytes and {most_pixels:,} px"
    translate = {
        "operationId": "translate",
        "summary": "Translate the face in a photo",
        "parameters": given,
        "requestBody": {"required": True, "description": body, "content": {"image/*": image}},
        "responses": {"200": done, **{code: _answer(text, "Error") for code, text in ERRORS.items()}},
    }
    health = _answer("it takes requests (503: it is stopping)", "Health")
    served = _answer("their names and what they can do", "Weights")
    return {
        "openapi": "3.1.0",
        "info": {"title": "facekit", "version": __version__, "license": {"name": "MIT", "identifier": "MIT"}},
        "paths": {
            "/translate": {"post": translate},
            "/health": {"get": {"operationId": "health", "summary": "Whether it works", "responses": {"200": health}}},
            "/weights": {"get": {"operationId": "weights", "summary": "The weights", "responses": {"200": served}}},
        },
        "components": {"schemas": SCHEMAS},
    }
