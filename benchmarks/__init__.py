"""Side-by-side measurements: `python -m benchmarks.NAME --help`. Each keeps its rows and goes on where it stopped."""
