"""Pages, and the site that is built of them (docs/site)."""
