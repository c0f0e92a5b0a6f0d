"""Tools, forms of answers, stop sequences and limits for models that only chat. Pure.

What is asked for is written into the prompt (``turns``, ``instructions``), and the answer is read back (``reader``,
``cutting``). ``dispatch.fitting`` decides what is emulated and calls the upstream.
"""
