"""Models and graphics cards as data, and the names by which people call them."""
