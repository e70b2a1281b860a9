"""Sessions for agents themselves, over the Model Context Protocol (extra `mcp`): `lifecycle mcp`."""
