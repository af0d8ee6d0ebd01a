"""Backpropagation and gradient descent from scratch, in NumPy: formulas, no autodiff, no tape."""
