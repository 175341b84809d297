"""What a run knows, as data: rankings of all rows, and selections made from them."""
