"""The tests, laid out by what they cost to run: unit, integration, acceptance, migration, chaos."""
