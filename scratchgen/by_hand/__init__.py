"""Gradients derived on paper and written out in NumPy, without the engine: a second check beside finite differences."""
