"""Sagas: functions whose steps are journaled in a topic, so that they go on wherever a crash left them."""
