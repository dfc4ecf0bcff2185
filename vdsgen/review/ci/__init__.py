"""Reviews in CI: what a pull or merge request does to configurations, in one comment kept up to date."""
