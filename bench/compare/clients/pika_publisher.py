"""Publishing to RabbitMQ with confirms that do not hold up the next message: pika's asynchronous connection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

IN_FLIGHT = 5000
AT_ONCE = 500


class Publisher:
    """Publishes every value of an iterator to a queue; `run` returns when the broker has confirmed them all."""

    def __init__(self, port: int, queue: str, values: Iterator[bytes], properties: Any) -> None:
        import pika

        self._queue, self._values, self._properties = queue, values, properties
        self._sent = self._confirmed = 0
        self._exhausted = False
        self._failure: BaseException | None = None
        self._connection: Any = pika.SelectConnection(
            pika.ConnectionParameters("127.0.0.1", port),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._opened),
            on_open_error_callback=self._failed,
            on_close_callback=lambda connection, reason: connection.ioloop.stop(),
        )

    def run(self) -> None:
        """Raises what the connection said if not everything was confirmed."""
        self._connection.ioloop.start()
        if not self._exhausted or self._confirmed != self._sent:
            raise RuntimeError(f"{self._confirmed} of {self._sent} messages confirmed: {self._failure}")

    def _failed(self, connection: Any, error: BaseException) -> None:
        self._failure = error
        connection.ioloop.stop()

    def _opened(self, channel: Any) -> None:
        self._channel = channel
        channel.confirm_delivery(self._on_confirm, callback=lambda _: self._publish())

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        self._confirmed = method.delivery_tag if method.multiple else max(self._confirmed + 1, 0)
        if self._exhausted and self._confirmed >= self._sent:
            self._connection.close()
        elif self._waiting and self._sent - self._confirmed < IN_FLIGHT:
            self._publish()

    def _publish(self) -> None:
        """A few hundred, then back to the loop, which must read the confirms."""
        self._waiting = self._sent - self._confirmed >= IN_FLIGHT
        if self._waiting or self._exhausted:
            return
        publish, queue, properties = self._channel.basic_publish, self._queue, self._properties
        for _ in range(AT_ONCE):
            value = next(self._values, None)
            if value is None:
                self._exhausted = True
                break
            publish("", queue, value, properties)
            self._sent += 1
        if self._exhausted:
            if self._confirmed >= self._sent:
                self._connection.close()
        else:
            self._connection.ioloop.call_later(0, self._publish)
