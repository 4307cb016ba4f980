"""The cycle and the loop in compiled, threaded code on CPUs."""
