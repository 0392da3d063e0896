"""Show runs to people: tables, curves and progress, from rows, plans and run folders. Independent of Ray and torch."""
