"""How each request is met, per dialect: Core expressions compiled once."""
