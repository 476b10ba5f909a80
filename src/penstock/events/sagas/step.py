"""Calling what a step calls: in time, async functions too, and with what the called function may ask about itself."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import CoroutineType
from typing import Any

import msgspec

from penstock.clock import Clock, SystemClock
from penstock.events.loop_thread import LoopThread
from penstock.events.sagas.errors import SagaTimeoutError

_SLICE_S = 0.005


class StepInfo(msgspec.Struct, frozen=True, gc=False):
    """The step that is running."""

    saga_id: str
    """Of the saga."""
    step: str
    """Name of the step."""
    key: str
    """Idempotency key: the same in every attempt, also after a crash."""
    attempt: int
    """1 for the first; attempts that a crash ended are not counted."""
    compensating: bool
    """Whether this is the compensation of the step."""


_current: contextvars.ContextVar[StepInfo | None] = contextvars.ContextVar("penstock_saga_step", default=None)


def current_step() -> StepInfo | None:
    """The saga's step, or compensation, that this thread or task runs; None outside of steps."""
    return _current.get()


class Caller:
    """Calls step functions. Any number of threads; `close` ends its own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._system = type(clock) is SystemClock
        self._lock = threading.Lock()
        self._loop: LoopThread | None = None
        self._helpers: queue.SimpleQueue[_Helper] = queue.SimpleQueue()

    def call(self, info: StepInfo, function: Callable[..., Any], args: tuple[Any, ...], timeout: float | None) -> Any:
        """The result of `function(*args)`. Raises what it raises, or `SagaTimeoutError` after `timeout` seconds.

        An async function is cancelled then. A thread cannot be: it is left to end by itself, and its result is ignored.
        """
        token = _current.set(info)
        try:
            result = function(*args) if timeout is None else self._call_in_time(info, function, args, timeout)
            if isinstance(result, CoroutineType):
                result = self._await(info, result, timeout)
            return result
        except asyncio.CancelledError as error:  # of something that it waited for, and no Exception
            raise RuntimeError(f"what step {info.step!r} waited for was cancelled") from error
        finally:
            _current.reset(token)

    def _call_in_time(self, info: StepInfo, function: Callable[..., Any], args: tuple[Any, ...], timeout: float) -> Any:
        if asyncio.iscoroutinefunction(function):
            return function(*args)  # awaited in time by the caller
        try:
            helper = self._helpers.get_nowait()
        except queue.Empty:
            helper = _Helper()
        context = contextvars.copy_context()
        future = helper.submit(lambda: context.run(function, *args))
        try:
            result = self._result(info, future, timeout)
        except SagaTimeoutError:
            if not future.done():
                helper.end()  # once it comes back
                raise
            result = future.result()
        except BaseException:
            self._give_back(helper, future)
            raise
        self._give_back(helper, future)
        return result

    def _give_back(self, helper: _Helper, future: Future[Any]) -> None:
        if future.done():
            self._helpers.put(helper)
        else:
            helper.end()

    def _await(self, info: StepInfo, coroutine: Any, timeout: float | None) -> Any:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._running_loop())
        try:
            return self._result(info, future, timeout)
        except BaseException:
            future.cancel()
            raise

    def _result(self, info: StepInfo, future: Future[Any], timeout: float | None) -> Any:
        if timeout is None:
            return future.result()
        if not self._system:
            deadline = self._clock.monotonic() + timeout
            while self._clock.monotonic() < deadline and not future.done():
                _wait(future, _SLICE_S)
            timeout = 0
        if not _wait(future, timeout):
            raise SagaTimeoutError(f"step {info.step!r} of saga {info.saga_id!r} took longer than its timeout")
        return future.result()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = LoopThread("penstock-saga-loop")
            return self._loop.loop

    def close(self) -> None:
        """End the helping threads."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.end(wait=False)
        while True:
            try:
                self._helpers.get_nowait().end()
            except queue.Empty:
                return


def _wait(future: Future[Any], timeout: float) -> bool:
    """Whether the future is done, at the latest after `timeout` seconds."""
    if future.done():
        return True
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    return done.wait(timeout)


class _Helper:
    """A thread that runs one call after another, so that its caller can stop waiting."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="penstock-saga-step", daemon=True).start()

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        self._calls.put((future, function))
        return future

    def end(self) -> None:
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function = call
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
            del call, future, function
