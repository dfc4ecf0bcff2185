"""The documentation site: pages of docs/, and reference pages made from the code, built by Sphinx."""
