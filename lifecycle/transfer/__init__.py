"""Export and import: every session with all it owns as JSON Lines, from one database into another."""
