"""What people look at: tables, curves and progress, from rows, plans and run folders. Knows neither ray nor torch."""
