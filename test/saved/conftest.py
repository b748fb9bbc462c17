"""The helpers' folder for the tests of saved files."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # saved_models.py, spawned_model.py
