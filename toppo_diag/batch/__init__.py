"""A manifest of figures and tables: reading it, making all of it, checking it, and the page about it."""
