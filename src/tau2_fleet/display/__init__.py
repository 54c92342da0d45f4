"""What people see in the terminal: messages, tables, progress."""
