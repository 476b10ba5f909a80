"""`@applies`: methods that all have one name, inheritance, base classes of events."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pytest

from penstock import InvalidTypeError, events
from penstock.events.applies import AppliesMeta, applier_of, appliers


class Base(events.Event):
    amount: int


class Deposited(Base):
    pass


class Withdrawn(Base):
    pass


class Closed1(events.Event, type="AppliesClosed", version=1):
    pass


class Closed2(events.Event, type="AppliesClosed", version=2):
    pass


class Account(metaclass=AppliesMeta):
    def __init__(self) -> None:
        self.seen: list[str] = []

    @events.applies(Deposited)
    def _(self, event: Deposited) -> None:
        self.seen.append(f"+{event.amount}")

    @events.applies(Withdrawn)
    def _(self, event: Withdrawn) -> None:
        self.seen.append(f"-{event.amount}")

    @events.applies(Closed1)
    def closed(self, event: Closed1) -> None:
        self.seen.append("closed")


def apply(account: Account, event: events.Event) -> None:
    function = applier_of(type(account), type(event))
    assert function is not None
    function(account, event)


def test_methods_of_one_name_are_all_kept() -> None:
    account = Account()
    for event in (Deposited(3), Withdrawn(2), Closed1()):
        apply(account, event)
    assert account.seen == ["+3", "-2", "closed"]
    assert set(appliers(Account)) == {Deposited, Withdrawn, Closed1}


def test_derived_classes_inherit_and_replace() -> None:
    class Audited(Account, ABC):
        @events.applies(Withdrawn)
        def _(self, event: Withdrawn) -> None:
            self.seen.append("audited")

        def closed(self, event: Closed1) -> None:
            self.seen.append("closed by name")

        @abstractmethod
        def audit(self) -> None: ...

    class Real(Audited):
        def audit(self) -> None: ...

    account = Real()
    for event in (Deposited(3), Withdrawn(2), Closed1()):
        apply(account, event)
    assert account.seen == ["+3", "audited", "closed by name"]
    with pytest.raises(TypeError, match="abstract"):
        Audited()  # type: ignore[abstract]


def test_bases_of_events_and_other_versions_match() -> None:
    class Total(metaclass=AppliesMeta):
        total = 0

        @events.applies(Base)
        def _(self, event: Base) -> None:
            self.total += event.amount

        @events.applies(Closed1)
        def _(self, event: events.Event) -> None:
            self.total = -1

    total = Total()
    for event in (Deposited(3), Withdrawn(2)):
        function = applier_of(Total, type(event))
        assert function is not None
        function(total, event)
    assert total.total == 5
    assert applier_of(Total, Closed2) is applier_of(Total, Closed1)

    class Other(events.Event):
        pass

    assert applier_of(Total, Other) is None


def test_one_method_for_several_events() -> None:
    class Count(metaclass=AppliesMeta):
        @events.applies(Deposited, Withdrawn)
        def _(self, event: events.Event) -> None: ...

    assert applier_of(Count, Deposited) is applier_of(Count, Withdrawn)


@pytest.mark.parametrize("given", [(), ("Deposited",), (int,)])
def test_only_event_classes(given: tuple[object, ...]) -> None:
    with pytest.raises(InvalidTypeError, match="Event classes"):
        events.applies(*given)  # type: ignore[arg-type]


def test_classes_that_are_made_by_a_call() -> None:
    made = AppliesMeta("Made", (), {"deposited": events.applies(Deposited)(lambda self, event: event.amount)})
    assert applier_of(made, Deposited) is made.deposited and applier_of(made, Withdrawn) is None
