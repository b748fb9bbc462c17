"""ModelReport: what calibration shows about layers, and the configs that follow from it."""
