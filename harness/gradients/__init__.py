"""Custom gradients: is the backward that somebody wrote by hand the derivative of the function?"""
