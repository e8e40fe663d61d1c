"""The documents as a web site, made of the Markdown files that stand in the tree."""
