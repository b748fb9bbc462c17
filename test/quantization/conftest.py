"""The helpers' folder for the quantization tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # float_models.py
