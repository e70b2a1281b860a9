"""The tables, their types, and the values that calls give back."""
