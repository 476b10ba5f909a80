"""Crypto-shredding: personal fields are stored sealed under the key of their subject, and unreadable without it.

A sealed event's data have the other fields, and `"$personal": {"key", "box", "forgotten"}`: the key's id; nonce and
AES-256-GCM ciphertext of the personal fields (base64 of both; the event's type is authenticated); what is read in their
place when the key was destroyed.
"""

from __future__ import annotations

import functools
import hashlib
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from penstock.errors import CodecUnavailableError, CorruptionError, InvalidTypeError
from penstock.events.errors import UnknownEventTypeError
from penstock.events.event import Event
from penstock.events.key_store import KeyStore
from penstock.events.personal import PersonalFields, personal_fields
from penstock.events.registry import SEALED, SEALED_MARK, registry

if TYPE_CHECKING:
    from penstock.events.envelope import Envelope
    from penstock.events.store.core import Core

Secrets = dict[str, "Cipher | None"]
"""What opens the data under keys, by the ids of the keys; None for one that was destroyed."""
_NONCE_BYTES = 12


class Erasure:
    """Seals and opens the personal fields of one store's events. Safe for threads and processes."""

    def __init__(self, path: Path) -> None:
        self.keys = KeyStore(path)

    def seal(self, envelopes: list[Envelope], now_ms: int) -> list[Envelope]:
        """The envelopes as they are to be stored. Raises `InvalidArgumentError`, `CodecUnavailableError`."""
        found = [_personal_part(envelope) for envelope in envelopes]
        subjects = {part[1] for part in found if part is not None}
        if not subjects:
            return envelopes
        ids, secrets = self._current(subjects, now_ms)
        ciphers = {key_id: Cipher(secret) for key_id, secret in secrets.items()}
        sealed = []
        for envelope, part in zip(envelopes, found, strict=True):
            if part is not None:
                fields, subject, event = part
                key_id = ids[subject]
                envelope = _sealed(envelope, fields, event, key_id, ciphers[key_id])
            sealed.append(envelope)
        return sealed

    def _current(self, subjects: set[str], now_ms: int) -> tuple[dict[str, str], dict[str, bytes]]:
        """The subjects' keys, none of which is just being destroyed."""
        while True:
            ids = self.keys.keys_for(subjects, now_ms)
            secrets = self.keys.secrets_of(ids.values())
            found = {key_id: secret for key_id, secret in secrets.items() if secret is not None}
            if len(found) == len(secrets):
                return ids, found

    def key_ids(self, events: Iterable[Event], now_ms: int) -> frozenset[str]:
        """The ids of the keys under which these events would be stored now."""
        plans = [(personal_fields(type(event)), event) for event in events]
        subjects = {plan.subject_of(event) for plan, event in plans if plan is not None}
        return frozenset(self.keys.keys_for(subjects, now_ms).values()) if subjects else frozenset()

    def open(self, envelope: Envelope) -> Envelope:
        """The envelope with its personal fields, or what is read in their place."""
        opened = self.open_data(envelope.type, envelope.payload)
        return msgspec.structs.replace(envelope, payload=msgspec.Raw(opened))

    def open_data(self, event_type: str, data: bytes | msgspec.Raw, secrets: Secrets | None = None) -> bytes:
        """The data (JSON) of a sealed event, opened. Raises `LostKeyError`, `CorruptionError`.

        `secrets`: those that were looked up for earlier events of the same reading; others are added.
        """
        fields = msgspec.json.decode(data)
        sealed = fields.pop(SEALED, None) if isinstance(fields, dict) else None
        if sealed is None:
            return bytes(data)
        key_id = sealed["key"]
        secrets = {} if secrets is None else secrets
        try:
            cipher = secrets[key_id]
        except KeyError:
            secret = self.keys.secrets_of([key_id])[key_id]
            cipher = secrets[key_id] = None if secret is None else Cipher(secret)
        fields.update(
            sealed["forgotten"] if cipher is None else msgspec.json.decode(cipher.open(sealed["box"], event_type))
        )
        return msgspec.json.encode(fields)

    def seal_state(self, state: bytes, key_ids: Iterable[str]) -> bytes | None:
        """A snapshot's bytes under all of these keys together; None when one of them was destroyed."""
        secret = self._together(key_ids)
        return None if secret is None else Cipher(secret).seal(state, "snapshot").encode()

    def open_state(self, box: bytes, key_ids: Iterable[str]) -> bytes | None:
        """The bytes of a snapshot; None when one of its keys was destroyed."""
        secret = self._together(key_ids)
        return None if secret is None else Cipher(secret).open(box.decode(), "snapshot")

    def _together(self, key_ids: Iterable[str]) -> bytes | None:
        ids = sorted(key_ids)
        secrets = self.keys.secrets_of(ids)
        together = hashlib.sha256(b"penstock snapshot")
        for key_id in ids:
            secret = secrets[key_id]
            if secret is None:
                return None
            together.update(secret)
        return together.digest()


def _personal_part(envelope: Envelope) -> tuple[PersonalFields, str, Event] | None:
    """(what is personal, whose it is, the event), or None."""
    event: Any = envelope.payload
    if isinstance(event, Event):
        fields = personal_fields(type(event))
    else:
        try:
            cls = registry.get(envelope.type)
        except UnknownEventTypeError:
            return None  # nobody declared anything of it
        fields = personal_fields(cls)
        if fields is not None:
            if SEALED_MARK in bytes(event):
                return None  # sealed already
            event = envelope.event()
    return None if fields is None else (fields, fields.subject_of(event), event)


def _sealed(envelope: Envelope, fields: PersonalFields, event: Event, key_id: str, cipher: Cipher) -> Envelope:
    data = msgspec.to_builtins(event)
    personal = {name: data.pop(name) for name in fields.names if name in data}
    box = cipher.seal(msgspec.json.encode(personal), event.event_type)
    forgotten = {name: fields.forgotten[name] for name in personal}
    sealed = {SEALED: {"key": key_id, "box": box, "forgotten": forgotten}, **data}
    payload = msgspec.Raw(msgspec.json.encode(sealed))
    return msgspec.structs.replace(envelope, payload=payload, version=event.event_version)


class Cipher:
    """AES-256-GCM under one secret; what it seals is text."""

    __slots__ = ("_aesgcm", "_invalid")

    def __init__(self, secret: bytes) -> None:
        aesgcm, self._invalid = _cryptography()
        self._aesgcm = aesgcm(secret)

    def seal(self, plain: bytes, purpose: str) -> str:
        """Base64 of nonce and ciphertext. It opens for the same `purpose` only."""
        nonce = os.urandom(_NONCE_BYTES)
        return b64encode(nonce + self._aesgcm.encrypt(nonce, plain, purpose.encode())).decode()

    def open(self, box: str, purpose: str) -> bytes:
        """What was sealed. Raises `CorruptionError`."""
        raw = b64decode(box)
        try:
            return cast(bytes, self._aesgcm.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], purpose.encode()))
        except self._invalid as error:
            raise CorruptionError(f"personal data of {purpose} were changed after they were sealed") from error


@functools.cache
def _cryptography() -> tuple[Any, type[Exception]]:
    try:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise CodecUnavailableError("personal data need cryptography: pip install 'penstock[erasure]'") from error
    return AESGCM, InvalidTag


class Forgetting:
    """The part of an event store that forgets."""

    _erasure: Erasure
    _core: Core
    broker: Any

    def forget(self, subject: str) -> bool:
        """Destroy the key of a subject: what is stored of it under the key cannot be read any more, by anybody, ever.

        In its place, None is read where the field's type allows it, else "[forgotten]", else the field's default.
        Events of the same subject that are appended later are stored under a new key. Returns whether there was a
        key; a subject that is unknown, or forgotten, is fine. Raises `InvalidTypeError`; `LockedError` when a process
        kept reading the keys for 30 s (call again).
        """
        if not isinstance(subject, str) or not subject:
            raise InvalidTypeError(f"subject is {subject!r}; a str that is not empty is needed")
        self._core.check_open()
        return self._erasure.keys.forget(subject, self.broker.clock.time_ms())
