"""The installer of models: the published releases, their download, their conversion, and the installed files."""
