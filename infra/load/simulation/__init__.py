"""A sale with honest shoppers and one attacker, on a real emulator: infra/load/bots runs it.

Read in this order: scenarios (which defences are on), people (what is assumed about everybody), play (one scenario from its start
to its audit), honest and attacker (what they do), outcomes (what counts), tables and drawing (the table and the picture).
"""
