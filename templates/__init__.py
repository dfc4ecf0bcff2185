"""The jinja2 templates of the rendered files, as package data (`vdsgen.templates`)."""
