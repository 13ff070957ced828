"""Settings for all tests."""

import os

# Set before torch is imported: on shared cores, threads that spin while they wait slow everything down tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
