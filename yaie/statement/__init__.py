"""Conformance statements: what a run of the suite has shown, and what it has not, in one file that
can be verified.

``waivers`` reads which faults are known, ``run`` reads the records, ``compose`` makes the statement
of them, ``verify`` says what is wrong with one, ``commands`` is the command line.
"""
