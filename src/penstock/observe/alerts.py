"""Alerts as code: a threshold on lag, age, depth, dead letters or errors, and a function that is called."""

from __future__ import annotations

import fnmatch
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.errors import ClosedError, InvalidArgumentError, InvalidConfigError, InvalidTypeError
from penstock.metrics import Metrics, Rates

if TYPE_CHECKING:
    from penstock.queues.broker import Broker

_log = logging.getLogger("penstock.alerts")
MEASURES = {
    "lag": "group",
    "lag_s": "group",
    "age_s": "queue",
    "depth": "queue",
    "dead": "queue",
    "dead_lettered_per_s": "queue",
    "error_rate": "queue",
    "errors_per_s": "topic",
}
_RATES = ("dead_lettered_per_s", "error_rate", "errors_per_s")


@dataclass(frozen=True, slots=True)
class Alert:
    """What a callback is given."""

    name: str
    """The rule's."""
    state: str
    """"firing" or "resolved"."""
    measure: str
    """What was measured, as `lag`."""
    subject: str
    """Of what: a group's, queue's or topic's name (a share group's: `topic/group`)."""
    value: float
    """What was measured now."""
    threshold: float
    since_ms: int
    """When the value was above the threshold first, in milliseconds since the epoch."""
    timestamp_ms: int
    """When this was noticed."""


Callback = Callable[[Alert], object]


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    measure: str
    pattern: str
    above: float
    resolve_at: float
    for_s: float
    callback: Callback


@dataclass(slots=True)
class _State:
    since_ms: int
    began_s: float
    firing: bool = False


class Alerts:
    """Rules over a broker's metrics, checked by `check`, or every `interval` seconds in a thread between `start` and
    `close` (also as a context manager).

        alerts = Alerts(broker)
        alerts.add("billing is behind", "lag_s", "billing", above=60, for_seconds=30, callback=page)

    A value above the threshold for `for_seconds` calls the callback with an `Alert` that is firing; a value that comes
    down to `resolve_at` calls it again with one that is resolved. A subject that goes away is resolved. A callback that
    raises is logged, and the other rules go on. Uses the broker's clock. `interval`: seconds between two
    checks, > 0 (`InvalidConfigError` otherwise).
    """

    def __init__(self, broker: Broker, interval: float = 5.0) -> None:
        if isinstance(interval, bool) or not isinstance(interval, (int, float)) or not interval > 0:
            raise InvalidConfigError(f"interval is {interval!r}; give seconds > 0")
        self._broker = broker
        self._interval = interval
        self._rules: list[_Rule] = []
        self._states: dict[tuple[int, str], _State] = {}
        self._previous: Metrics | None = None
        self._rates: Rates | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def add(
        self,
        name: str,
        measure: str,
        subject: str = "*",
        *,
        above: float,
        callback: Callback,
        for_seconds: float = 0.0,
        resolve_at: float | None = None,
    ) -> None:
        """Add a rule.

        `measure`: of consumer groups `lag` (records) and `lag_s` (seconds); of queues and share groups `depth` (ready
        messages), `age_s` (of the oldest), `dead`, `dead_lettered_per_s`, `error_rate` (0 to 1); of topics
        `errors_per_s`. Rates are those between two checks. `subject`: a name, or a pattern as `orders-*`, of which each
        match is an alert of its own. `above`: fires while the value is greater. `for_seconds`: only when it has been
        for so long. `resolve_at`: resolves when the value is at most this (default: `above`).
        Raises `InvalidArgumentError`, `InvalidTypeError`.
        """
        if not isinstance(measure, str) or measure not in MEASURES:
            raise InvalidArgumentError(f"measure is {measure!r}; allowed are {', '.join(MEASURES)}")
        if not isinstance(name, str) or not isinstance(subject, str):
            raise InvalidTypeError(f"name is {name!r} and subject is {subject!r}; give both as str")
        if not callable(callback):
            raise InvalidTypeError(f"callback is {callback!r}; give a function of an Alert")
        low = above if resolve_at is None else resolve_at
        for argument, value in (("above", above), ("for_seconds", for_seconds), ("resolve_at", low)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
                raise InvalidTypeError(f"{argument} is {value!r}; give a number")
        if low > above or for_seconds < 0:
            raise InvalidArgumentError(
                f"resolve_at is {low} and for_seconds is {for_seconds}; allowed are at most above={above}, and >= 0"
            )
        with self._lock:
            self._rules.append(_Rule(name, measure, subject, above, low, for_seconds, callback))

    def check(self) -> list[Alert]:
        """Look now; returns what began to fire or was resolved, after the callbacks were called."""
        with self._lock:
            metrics = self._broker.metrics()
            if self._previous is not None and metrics.monotonic_s > self._previous.monotonic_s:
                self._rates = metrics.since(self._previous)
                self._previous = metrics
            elif self._previous is None:
                self._previous = metrics
            changes = [change for number in range(len(self._rules)) for change in self._changes(number, metrics)]
        for rule, alert in changes:
            _log.warning(
                "%s: %s of %s is %g (%s)", alert.name, alert.measure, alert.subject, alert.value, alert.state,
                extra={"alert": alert.name, "state": alert.state, "subject": alert.subject, "value": alert.value},
            )  # fmt: skip
            try:
                rule.callback(alert)
            except Exception:
                _log.exception("the callback of alert %s raised", rule.name)
        return [alert for _, alert in changes]

    def firing(self) -> list[tuple[str, str]]:
        """(name, subject) of what fires now."""
        with self._lock:
            keys = [key for key, state in self._states.items() if state.firing]
            return sorted((self._rules[number].name, subject) for number, subject in keys)

    def _changes(self, number: int, metrics: Metrics) -> Iterator[tuple[_Rule, Alert]]:
        rule = self._rules[number]
        values = {
            subject: value
            for subject, value in _measure(rule.measure, metrics, self._rates)
            if fnmatch.fnmatchcase(subject, rule.pattern)
        }
        known = {subject for one, subject in self._states if one == number}
        for subject in sorted({*values, *known}):
            value = values.get(subject, 0.0)
            alert = self._follow(number, rule, subject, value, metrics, gone=subject not in values)
            if alert is not None:
                yield rule, alert

    def _follow(
        self, number: int, rule: _Rule, subject: str, value: float, metrics: Metrics, gone: bool
    ) -> Alert | None:
        key = (number, subject)
        state = self._states.get(key)
        if state is None:
            if not value > rule.above:
                return None
            state = self._states[key] = _State(metrics.timestamp_ms, metrics.monotonic_s)
        elif gone or value <= (rule.resolve_at if state.firing else rule.above):
            del self._states[key]
            return self._alert(rule, "resolved", subject, value, state, metrics) if state.firing else None
        if not state.firing and metrics.monotonic_s - state.began_s >= rule.for_s:
            state.firing = True
            return self._alert(rule, "firing", subject, value, state, metrics)
        return None

    def _alert(self, rule: _Rule, state: str, subject: str, value: float, began: _State, metrics: Metrics) -> Alert:
        return Alert(rule.name, state, rule.measure, subject, value, rule.above, began.since_ms, metrics.timestamp_ms)

    # --- in the background -----------------------------------------------------------------------------------------

    def start(self) -> Alerts:
        """Check every `interval` seconds of real time, in a thread, until `close` or until the broker is closed."""
        if self._thread is None:
            self._stopped.clear()
            self._thread = threading.Thread(target=self._run, name="penstock-alerts", daemon=True)
            self._thread.start()
        return self

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            try:
                self.check()
            except ClosedError:
                return
            except Exception:
                _log.exception("checking the alerts of %s failed and will be tried again", self._broker)

    def close(self) -> None:
        """End the thread. What fires is not resolved by this."""
        thread, self._thread = self._thread, None
        self._stopped.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def __enter__(self) -> Alerts:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


def _measure(measure: str, metrics: Metrics, rates: Rates | None) -> Iterator[tuple[str, float]]:
    """(subject, value) of everything that has this measure."""
    kind = MEASURES[measure]
    if kind == "group":
        for name, group in metrics.groups.items():
            yield name, group.lag if measure == "lag" else group.lag_s
        return
    if measure in _RATES:
        if rates is None:
            return
        if kind == "topic":
            for name, topic in rates.topics.items():
                yield name, topic.errors_per_s
            return
        for name, rate in rates.queues.items():
            yield name, getattr(rate, measure)
        for (topic_name, share), rate in rates.share_groups.items():
            yield f"{topic_name}/{share}", getattr(rate, measure)
        return
    field = {"age_s": "age_of_oldest_s", "depth": "ready", "dead": "dead"}[measure]
    for name, queue in metrics.queues.items():
        yield name, getattr(queue, field)
    for (topic_name, share), queue in metrics.share_groups.items():
        yield f"{topic_name}/{share}", getattr(queue, field)
