"""The Django app of the drill: a shop with orders, beside the apps of this checkout."""
