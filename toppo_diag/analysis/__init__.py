"""Pure functions: arrays in, labelled tables out. Nothing here draws, and nothing reads or writes a file."""
