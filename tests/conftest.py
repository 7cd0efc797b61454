"""One thread for each of the processes that share the tests among them (pytest-xdist), set before torch is imported."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
