"""The worker loop: a handler called for every message, in threads or processes, with a graceful stop."""

from __future__ import annotations

import logging
import multiprocessing
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from penstock.error_text import repr_of, trace_of
from penstock.errors import (
    ClosedError,
    InvalidArgumentError,
    InvalidConfigError,
    InvalidTypeError,
    PenstockError,
    StaleReceiptError,
)
from penstock.queues.log_fields import message_fields
from penstock.queues.presence import Presence
from penstock.queues.retry import RetryPolicy
from penstock.stopping import StopFlag, stopped_by_signals

if TYPE_CHECKING:
    from penstock._native.message import Message
    from penstock.queues.share_group import ShareGroup

_log = logging.getLogger("penstock.worker")
_RECEIVE_S = 1.0


class Worker:
    """Calls `handler(message)` for every message of a queue or share group: returned, it is acknowledged; raised, it is
    given back with the retry policy's delay, and in the end dead-lettered with the traceback in `dead-letter-error`.

    `threads`: handlers at once in this process. `processes`: so many processes, each with `threads` threads (spawned:
    the handler must be importable). `prefetch`: messages a thread receives at a time. `retry`: a `RetryPolicy`. While a
    handler runs, the time-outs of what its thread holds are extended. A stop (`stop`, SIGTERM or SIGINT in `run`)
    finishes the messages in hand and gives what was prefetched back at once, which is no failure. In a fifo queue the
    messages of a group are handled one after another, whatever the number of threads; when one is to be tried again,
    what was prefetched of its group is given back, to come after it. `exclusive`: `LockedError` while
    other workers (or iterations) consume it, and theirs while this one does. `consumer_priority`: see `Queue.receive`.
    Raises `InvalidTypeError`, `InvalidArgumentError`, `InvalidConfigError`.
    """

    def __init__(
        self,
        queue: ShareGroup,
        handler: Callable[[Message], Any],
        threads: int = 1,
        processes: int = 0,
        prefetch: int = 1,
        retry: RetryPolicy | None = None,
        visibility_timeout: float | None = None,
        exclusive: bool = False,
        consumer_priority: int = 0,
    ) -> None:
        if not callable(handler):
            raise InvalidTypeError(f"handler is {handler!r}; a callable of one message is needed")
        for name, value, least in (("threads", threads, 1), ("processes", processes, 0), ("prefetch", prefetch, 1)):
            if type(value) is not int or value < least:
                raise InvalidConfigError(f"{name} is {value!r}; allowed is an int from {least}")
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise InvalidTypeError(f"retry is {retry!r}; a RetryPolicy or None is needed")
        if visibility_timeout is not None and not 0.01 <= visibility_timeout <= 43_200:
            raise InvalidArgumentError(f"visibility_timeout is {visibility_timeout!r}; give seconds, 0.01 to 43200")
        self._queue = queue
        self._handler = handler
        self._counts = (threads, processes, prefetch)
        self._retry = retry or RetryPolicy()
        self._visibility = visibility_timeout
        if exclusive and processes > 1:
            raise InvalidConfigError(f"exclusive is True and processes is {processes}; allowed is one consumer")
        self._exclusive = exclusive
        if type(consumer_priority) is not int or not 0 <= consumer_priority <= 100:
            raise InvalidConfigError(f"consumer_priority is {consumer_priority!r}; allowed is an int from 0 to 100")
        self._priority = consumer_priority
        self._presence: Presence | None = None
        self._stopped = StopFlag()
        self._holders: list[_Holder] = []
        self._threads: list[threading.Thread] = []
        self._processes: list[Any] = []
        self._failure: BaseException | None = None

    # --- running ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until stopped. In the main thread, SIGTERM and SIGINT stop it."""
        with stopped_by_signals(self.stop) as signalled:
            try:
                self.start()
                if signalled.is_set():
                    self.stop()
                self.join()
            finally:
                self.stop()
        if self._failure is not None:
            raise self._failure

    def start(self) -> Worker:
        """Work in the background; `stop` and `join` end it."""
        threads, processes, _ = self._counts
        if not processes:
            self._presence = self._queue._presence(self._exclusive).__enter__()
        if processes:
            context = multiprocessing.get_context("spawn")
            for _ in range(processes):
                process = context.Process(
                    target=_work, args=(self._queue, self._handler, self._options()), daemon=False
                )
                process.start()
                self._processes.append(process)
            return self
        for number in range(threads):
            holder = _Holder()
            self._holders.append(holder)
            self._threads.append(
                threading.Thread(target=self._guarded, args=(holder,), name=f"penstock-worker-{number}", daemon=True)
            )
        self._threads.append(threading.Thread(target=self._keep, name="penstock-worker-keeper", daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """Finish what is in hand, give the rest back, and end. Returns at once; from any thread or signal handler."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._queue._bell.ring()
        for process in list(self._processes):
            if process.is_alive():
                process.terminate()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end."""
        for one in [*self._threads, *self._processes]:
            while timeout is None and one.is_alive():
                one.join(0.2)  # in slices: a signal handler runs between them
            one.join(timeout)
        if self._presence is not None and not any(thread.is_alive() for thread in self._threads):
            self._presence.__exit__(None, None, None)
            self._presence = None
            self._queue._left()

    def _options(self) -> dict[str, Any]:
        threads, _, prefetch = self._counts
        return {
            "threads": threads, "prefetch": prefetch, "retry": self._retry, "visibility_timeout": self._visibility,
            "exclusive": self._exclusive, "consumer_priority": self._priority,
        }  # fmt: skip

    # --- one thread ------------------------------------------------------------------------------------------------

    def _guarded(self, holder: _Holder) -> None:
        try:
            self._loop(holder)
        except ClosedError:
            _log.info("the queue of a worker was closed: %s", self._queue.topic_name)
            self._stopped.set()
        except BaseException as error:
            self._failure = error
            _log.exception("a worker of %s ends", self._queue.topic_name)
            self._stopped.set()

    def _loop(self, holder: _Holder) -> None:
        prefetch = self._counts[2]
        while not self._stopped.is_set():
            messages = self._queue._receive_until(self._stopped, prefetch, _RECEIVE_S, self._visibility, self._priority)
            holder.take(messages)
            waiting = WaitingGroups(self._queue)
            while message := holder.next():
                if self._stopped.is_set() or message in waiting:
                    self._give_back(message)
                elif not self._handle(message):
                    waiting.add(message)
                holder.done(message)

    def _handle(self, message: Message) -> bool:
        """Whether it is dealt with; if not, it comes again."""
        try:
            self._handler(message)
        except Exception as error:
            return self._failed(message, error)
        if not message.settled:
            self._settle(message.ack)
        return True

    def _failed(self, message: Message, error: Exception) -> bool:
        """Whether it is dealt with all the same; if not, it comes again."""
        if message.settled:
            told = self._fields(message)
            _log.exception("the handler of %s raised after it had settled the message", message.id, extra=told)
            return True
        trace = trace_of(error)
        failures = message.failure_count + 1
        limit = self._retry.max_attempts
        what = repr_of(error)  # not the error itself: a kept log record would keep its frames
        _log.warning("message %s failed (%d): %s", message.id, failures, what, extra=self._fields(message, error=what))
        if isinstance(error, self._retry.give_up_on):
            self._settle(lambda: self._queue._bury(message, "rejected", trace, None))
        elif limit is not None and failures >= limit:
            self._settle(lambda: self._queue._bury(message, "delivery_limit", trace, None))
        else:
            self._settle(lambda: self._queue._nack(message, self._retry.delay_after(failures), True, trace))
            return False
        return True

    def _fields(self, message: Message, **more: Any) -> dict[str, Any]:
        return message_fields(message, self._queue.group, **more)

    def _give_back(self, message: Message) -> None:
        self._settle(lambda: message.nack(failed=False))

    def _settle(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except StaleReceiptError as error:
            _log.warning("settled too late, it is somebody else's: %s", error)

    # --- keeping what is in hand -----------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Extend the time-outs of what is in hand, three times in each."""
        clock = self._queue._clock
        while not self._stopped.is_set() or any(holder.busy for holder in self._holders):
            visibility = self._queue._config.visibility_timeout if self._visibility is None else self._visibility
            renewed = clock.monotonic()
            while clock.monotonic() - renewed < visibility / 3:
                if self._stopped.wait(min(0.2, visibility / 6)) and not any(holder.busy for holder in self._holders):
                    return
            for holder in self._holders:
                for message in holder.all():
                    try:
                        message.extend(visibility)
                    except StaleReceiptError:
                        _log.debug("message %s was settled meanwhile", message.id, extra=self._fields(message))
                    except PenstockError:
                        _log.exception("message %s could not be kept", message.id, extra=self._fields(message))


class _Holder:
    """What one thread has received and not settled; the first is being handled."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._lock = threading.Lock()

    def take(self, messages: list[Message]) -> None:
        with self._lock:
            self._messages = messages

    def next(self) -> Message | None:
        with self._lock:
            return self._messages[0] if self._messages else None

    def done(self, message: Message) -> None:
        with self._lock:
            self._messages.remove(message)

    def all(self) -> list[Message]:
        with self._lock:
            return [message for message in self._messages if not message.settled]

    @property
    def busy(self) -> bool:
        return bool(self._messages)


class WaitingGroups:
    """The groups of a fifo queue of which a message in hand is to be tried again."""

    def __init__(self, queue: ShareGroup) -> None:
        self._ordered = queue._config.fifo
        self._keys: set[bytes | None] = set()

    def add(self, message: Message) -> None:
        """Its group waits for it."""
        if self._ordered:
            self._keys.add(message.key)

    def __contains__(self, message: Message) -> bool:
        return message.key in self._keys


def _work(queue: ShareGroup, handler: Callable[[Message], Any], options: dict[str, Any]) -> None:
    """A worker process."""
    Worker(queue, handler, **options).run()
    queue._broker.close()
