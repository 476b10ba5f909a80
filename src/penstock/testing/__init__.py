"""Testing with Penstock: a pytest plugin, and given-when-then for event-sourced code. Needs `penstock[events]`.

The plugin is loaded where Penstock is installed, by its entry point; where it is only on the path,
`pytest_plugins = ["penstock.testing"]` or `-p penstock.testing` loads it. All go by the module's name, so that it is
registered once. Its fixtures: `penstock_clock`, `penstock_broker`, `penstock_events`, `penstock_scenario`.
"""

import importlib
from typing import TYPE_CHECKING

from penstock.testing.fixtures import penstock_broker, penstock_clock, penstock_events, penstock_scenario

if TYPE_CHECKING:
    from penstock.testing.captured import CapturedEvents
    from penstock.testing.scenario import AggregateScenario, ProjectionScenario, SagaScenario, Scenario

_LATER = {
    "AggregateScenario": "scenario",
    "CapturedEvents": "captured",
    "ProjectionScenario": "scenario",
    "SagaScenario": "scenario",
    "Scenario": "scenario",
}


def __getattr__(name: str) -> object:
    if name in _LATER:  # not before it is asked for: pytest loads this module in every run
        return getattr(importlib.import_module(f"penstock.testing.{_LATER[name]}"), name)
    raise AttributeError(f"module 'penstock.testing' has no attribute {name!r}")


__all__ = [
    "AggregateScenario",
    "CapturedEvents",
    "ProjectionScenario",
    "SagaScenario",
    "Scenario",
    "penstock_broker",
    "penstock_clock",
    "penstock_events",
    "penstock_scenario",
]
