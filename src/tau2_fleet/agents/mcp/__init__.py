"""The agent's seat over MCP, for scaffolds in any language: `agent/scaffold=mcp`."""
