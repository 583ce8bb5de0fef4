"""The interactive page of `toppo-diag report`: tables in, the text of one HTML file out."""
