"""The helpers' folder for the module tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # attention_cases.py
