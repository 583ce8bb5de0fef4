"""Pure functions: tables in, matplotlib figures out."""
