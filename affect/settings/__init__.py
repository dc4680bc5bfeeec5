"""Every setting by what it belongs to, recipes, search spaces, and addresses."""
