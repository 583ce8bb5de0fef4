"""A manifest of figures and tables: reading it, making its entries, checking them, and writing a page about them."""
