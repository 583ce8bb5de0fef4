"""The trainer of TOPPO: multi-task PPO with per-task gradients, and its environments, runs and sweeps."""
