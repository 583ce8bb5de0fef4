"""One update of TOPPO, from a batch of rollouts to an optimizer step. Start with `update`; the others are its parts."""
