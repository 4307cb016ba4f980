"""Where the cycle and the loop run: on CPUs in compiled code, or with torch."""
