"""One conversation between agent, customer and environment, from its first message to its record."""
