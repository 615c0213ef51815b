"""Gradients derived on paper and written out in NumPy, without the engine: a witness beside finite differences."""
