"""From a config to a plan of plain numbers, each with its reason. Knows neither torch nor ray."""
