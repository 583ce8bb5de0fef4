"""TOPPO itself: multi-task PPO with critic balancing on Meta-World. Needs torch and, to collect, Meta-World."""
