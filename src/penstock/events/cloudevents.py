"""CloudEvents 1.0 (JSON format, structured mode) to and from the envelope's document.

`id type source time data` are the envelope's; its `version`, `correlationId`, `causationId` and metadata become the
extension attributes `schemaversion correlationid causationid` and `metadata` (JSON text, as extensions are scalars).
What the envelope has no place for is kept in its metadata, as `cloudEvent`: attributes such as `subject` and
`traceparent`, and data that are no JSON object, with their content type; the envelope's own data are empty then.
"""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from penstock.events.errors import UNREADABLE, InvalidEventError

_REQUIRED = ("specversion", "id", "type", "source")
_EXTENSIONS = ("schemaversion", "correlationid", "causationid", "metadata")
_KNOWN = frozenset((*_REQUIRED, *_EXTENSIONS, "time", "datacontenttype", "data", "data_base64"))
_CONTENT = ("datacontenttype", "data", "data_base64")
_OTHERS = "cloudEvent"
_JSON = re.compile(r"[^;]*[/+]json\s*(;|$)", re.IGNORECASE)


def from_document(document: dict[str, Any]) -> dict[str, Any]:
    """The CloudEvent of an envelope's JSON document."""
    metadata = dict(document["metadata"])
    others = metadata.pop(_OTHERS, {})
    others = others if isinstance(others, dict) else {}
    content = {name: others[name] for name in _CONTENT if name in others}
    event = {
        **{name: value for name, value in others.items() if name not in content},
        "specversion": "1.0",
        "id": document["messageId"],
        "source": document["source"],
        "type": document["type"],
        "time": document["timestamp"],
        "schemaversion": document["version"],
        "correlationid": document["correlationId"],
    }
    if document.get("causationId"):
        event["causationid"] = document["causationId"]
    if metadata:
        event["metadata"] = msgspec.json.encode(metadata).decode()
    return {**event, **(content or {"datacontenttype": "application/json", "data": document["data"]})}


def to_document(event: dict[str, Any] | bytes | str) -> dict[str, Any]:
    """The envelope's JSON document of a CloudEvent, also one that was not made here."""
    try:
        found = event if isinstance(event, dict) else msgspec.json.decode(event)
        missing = [name for name in _REQUIRED if not isinstance(found.get(name), str) or not found[name]]
        if missing:
            raise InvalidEventError(f"CloudEvent without {', '.join(missing)}; a str that is not empty is needed")
        if found["specversion"] != "1.0":
            raise InvalidEventError(f"CloudEvent of specversion {found['specversion']!r}; allowed is '1.0'")
        document = {
            "messageId": found["id"],
            "type": found["type"],
            "version": found.get("schemaversion", 1),
            "timestamp": found.get("time") or datetime.now(UTC).isoformat(),
            "source": found["source"],
            "correlationId": found.get("correlationid") or found["id"],
            "data": _data(found),
            "metadata": _metadata(found.get("metadata", {})),
        }
        others = {name: value for name, value in found.items() if name not in _KNOWN}
        if document["data"] is None:
            document["data"] = {}
            others.update({name: found[name] for name in _CONTENT if found.get(name) is not None})
        if others:
            document["metadata"] = {**document["metadata"], _OTHERS: others}
        return {**document, "causationId": found["causationid"]} if found.get("causationid") else document
    except (*UNREADABLE, AttributeError, TypeError) as error:
        raise InvalidEventError(f"this is no CloudEvent in JSON: {error}") from error


def _data(event: dict[str, Any]) -> Any:
    """The data, or None when they are no JSON object, and have to be kept as they are."""
    if event.get("data_base64") is None:
        data = event["data"] if event.get("data") is not None else {}
        return data if isinstance(data, (dict, list)) else None
    content_type = event.get("datacontenttype")
    is_json = content_type is None or _JSON.match(content_type) is not None
    try:
        raw = base64.b64decode(event["data_base64"], validate=True)
        data = msgspec.json.decode(raw) if is_json else None
    except (ValueError, RecursionError) as error:
        raise InvalidEventError(f"data_base64 of the CloudEvent is not JSON in base64: {error}") from error
    return data if isinstance(data, (dict, list)) else None


def _metadata(given: Any) -> dict[str, Any]:
    found = msgspec.json.decode(given) if isinstance(given, str) else given
    if not isinstance(found, dict):
        raise InvalidEventError(f"metadata of the CloudEvent is {given!r}; a JSON object is needed")
    return found
