"""All settings, grouped by what they configure; recipes, search spaces and addresses."""
