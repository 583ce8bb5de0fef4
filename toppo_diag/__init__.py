"""Offline toolkit for gradient dumps: pure analysis of Grams and slabs, figures, and the `toppo-diag` command line.
No torch.
"""
