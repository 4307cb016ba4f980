"""What brings a matrix to the form that the network knows."""
