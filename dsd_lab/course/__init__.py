"""What the notebooks need besides the library: their execution."""
