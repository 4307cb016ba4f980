"""Media of high contrast: iterations beside those of BoomerAMG, and media that no family resembles."""
