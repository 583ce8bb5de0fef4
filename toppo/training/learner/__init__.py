"""One update of TOPPO, from a batch of rollouts to a step. Read `update` first; the others are its parts."""
