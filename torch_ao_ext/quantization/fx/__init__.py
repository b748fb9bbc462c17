"""Parts of FX graph mode: custom configs and the quantizer of a QConfigMapping."""
