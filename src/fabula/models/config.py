"""A model's config.json as an object: every key an attribute, sizes checked, unknown keys kept."""
