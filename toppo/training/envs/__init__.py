"""Meta-World behind one small interface (`toppo.training.envs.interface.Backend`)."""
