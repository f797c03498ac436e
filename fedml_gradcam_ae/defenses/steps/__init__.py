"""Transformations of a round that go in front of a rule: functions from a round and settings to a round.

Each one returns `round.mixed(...)`, so steps can be chained. `shared.in_front.carry_back` turns a rule's verdict on the
last round of a chain into one on the first.
"""
