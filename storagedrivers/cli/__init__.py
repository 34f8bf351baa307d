"""The command line: one module for each command, and what they share: :mod:`.nouns`,
:mod:`.output`, :mod:`.running`, :mod:`.templates`, options, lists. The only place that prints or
exits.
"""
