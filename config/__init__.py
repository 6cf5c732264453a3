"""What the operator wants: settings, their loader, and the commented reference `deferd.yaml`.

`config.settings` has the values, `config.loader` reads them. Nothing here imports anything of ours.
"""
