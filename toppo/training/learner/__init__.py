"""One update of TOPPO, from a batch of rollouts to an optimizer step. Start with `update`. The others are its parts."""
