"""TaskForce: cooperative reinforcement-learning agents, one a task, weigh the tasks from the Gram.

`combiner` is the method and its options; `observation`, `reward`, `noise` and `replay` are its parts, in numpy;
`agents` are the networks, the only part that imports torch, and only once they are used.
"""

from toppo.combiners.taskforce.combiner import TaskForce
from toppo.combiners.taskforce.observation import project

__all__ = ["TaskForce", "project"]
