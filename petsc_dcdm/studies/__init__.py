"""What was found out, by running: not part of the installed package."""
