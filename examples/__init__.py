"""Programs that show how Lifecycle is used."""
