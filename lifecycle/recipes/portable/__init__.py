"""How each request is met on any database: several statements in one transaction."""
