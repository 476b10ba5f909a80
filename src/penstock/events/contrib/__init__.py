"""Adapters that let other libraries keep their events in Penstock."""
