"""The programs that are measured against each other. Each prints one JSON object as its last line."""
