"""One solve: its steps, its constants, its end."""
