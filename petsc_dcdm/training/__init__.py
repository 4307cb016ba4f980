"""Training of the networks: domains, losses, the loop. torch and numpy only."""
