"""Multi-task PPO with critic balancing (TOPPO), its combiners and its dump store.

Importing this package is free of torch and Meta-World: `toppo.combiners` and `toppo.dump` stand on numpy, scipy and
zarr alone.
"""
