"""The helpers' folder for the pt2e tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # flow_models.py
