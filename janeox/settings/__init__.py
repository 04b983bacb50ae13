"""The settings of each verb of the command line: sections of a recipe (`config.py`), files and folders.

`out` is the folder of the run for all of them, so that one recipe serves every verb.
"""
