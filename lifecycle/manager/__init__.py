"""The managers: a list of operations bound to a driver."""
