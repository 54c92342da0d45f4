"""Ask a language model for its next message: one small class per provider behind one protocol."""
