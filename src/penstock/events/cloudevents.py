"""CloudEvents 1.0 (JSON format, structured mode) to and from the envelope's document.

`id type source time data` are the envelope's; its `version`, `correlationId`, `causationId` and metadata become the
extension attributes `schemaversion correlationid causationid` and `metadata` (JSON text, as extensions are scalars).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from penstock.events.errors import InvalidEventError

_REQUIRED = ("specversion", "id", "type", "source")


def from_document(document: dict[str, Any]) -> dict[str, Any]:
    """The CloudEvent of an envelope's JSON document."""
    event = {
        "specversion": "1.0",
        "id": document["messageId"],
        "source": document["source"],
        "type": document["type"],
        "time": document["timestamp"],
        "datacontenttype": "application/json",
        "schemaversion": document["version"],
        "correlationid": document["correlationId"],
    }
    if document.get("causationId"):
        event["causationid"] = document["causationId"]
    if document["metadata"]:
        event["metadata"] = msgspec.json.encode(document["metadata"]).decode()
    return {**event, "data": document["data"]}


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
            "data": found["data"] if found.get("data") is not None else {},
            "metadata": _metadata(found.get("metadata", {})),
        }
        return {**document, "causationId": found["causationid"]} if found.get("causationid") else document
    except (msgspec.MsgspecError, AttributeError, TypeError) as error:
        raise InvalidEventError(f"this is no CloudEvent in JSON: {error}") from error


def _metadata(given: Any) -> dict[str, Any]:
    found = msgspec.json.decode(given) if isinstance(given, str) else given
    if not isinstance(found, dict):
        raise InvalidEventError(f"metadata of the CloudEvent is {given!r}; a JSON object is needed")
    return found
